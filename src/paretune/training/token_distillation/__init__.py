"""Training of reward tokens (RaTE): a token, the student, is distilled from an expert, the teacher.

`trainer` is the loop, `teacher` the expert and its samples, `student` the token on the base model:
`flow_student` for pictures and clips, `text_student` for answers.
"""
