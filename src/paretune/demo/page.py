"""The page in Gradio: its controls, and the question that each change asks. Only `serving` imports it."""
# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# Gradio is installed by the extra `demo`. The way it fills its namespace makes public names look private.

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import gradio as gr

from ..types import ParetuneError
from . import asked, markup
from .answers import LABELS, Answers
from .choosing_panel import QUICK, Choosing

HERE = Path(__file__).parent
CSS, FRONT_JS = (HERE / "page.css").read_text("utf-8"), (HERE / "front.js").read_text("utf-8")
PICKER, PICKER_JS = (HERE / "picker.html").read_text("utf-8"), (HERE / "picker.js").read_text("utf-8")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "DejaVu Sans Mono", "monospace")
SEEDS = 2**31


def theme() -> Any:
    """Gradio's theme with fonts of the visitor's machine, because the default loads fonts from Google."""
    return gr.themes.Default(primary_hue="blue", font=list(FONTS), font_mono=list(MONO))


class Page:
    """The controls, their order in a question, and the places of the answer."""

    def __init__(self, answers: Answers, name: str) -> None:
        self.answers = answers
        self.rewards = answers.source.rewards
        with gr.Blocks(title=f"paretune: {name}", analytics_enabled=False, fill_width=True) as self.blocks:
            title = f"{markup.shown(name)}: one model, {len(self.rewards)} rewards"
            gr.HTML(f"<h1>{title}</h1>", elem_id="pt-head")
            with gr.Row(elem_id="pt-page"):
                with gr.Column(scale=2, min_width=280):
                    self._controls()
                with gr.Column(scale=3, min_width=280):
                    self.message = gr.HTML(elem_id="pt-message")
                    self.samples = gr.HTML(elem_id="pt-samples")
                    self.bars = gr.HTML(elem_id="pt-bars")
            gr.HTML("<h2>The measured front</h2><p class='pt-note'>Means over held-out prompts. A click on a "
                    "point sets the sliders to it.</p>", elem_id="pt-front-head")  # fmt: skip
            self.front = gr.HTML(elem_id="pt-front", js_on_load=FRONT_JS)
            self._wire()
            if answers.can_choose:
                Choosing(self)

    def inputs(self) -> dict[int, int]:
        """The number of every question -> how many values it carries."""
        return {number: len(question.inputs) for number, question in self.blocks.fns.items()}

    def _controls(self) -> None:
        answers = self.answers
        examples = self.shown_examples = answers.examples()
        most = 8 if answers.medium.lines else 3
        self.prompt = gr.Textbox(examples[0], label="Prompt", lines=1, max_lines=most, elem_id="pt-prompt")
        # None for a model that takes no input picture; so its page's questions do not carry one.
        self.picker = gr.HTML(
            "", html_template=PICKER, js_on_load=PICKER_JS, elem_id="pt-picker"
        ) if answers.source.takes_picture else None  # fmt: skip
        self.examples = gr.Dataset(
            components=[gr.Textbox(visible=False)], samples=[[text] for text in examples],
            label="Examples", type="values", elem_id="pt-examples",
        )  # fmt: skip
        self.sliders = [
            gr.Slider(0, 1, value=round(share, 2), step=0.01, label=f"weight of {reward}",
                      buttons=[], elem_classes="pt-slider")
            for reward, share in zip(self.rewards, answers.source.default_preference, strict=True)
        ]  # fmt: skip
        choices = [(LABELS[method], method) for method in answers.methods]
        self.method = gr.Radio(choices, value=answers.methods[0], label="Method", elem_id="pt-method")
        self.tokens = gr.Textbox(
            "", label="Reward tokens beside it", placeholder="as ocr:2 preference@0.5",
            visible=bool(answers.source.bank), elem_id="pt-tokens",
        )  # fmt: skip
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="pt-seed", min_width=120)
            self.lock = gr.Checkbox(True, label="Keep the seed", elem_id="pt-lock", min_width=120)
        self.button = gr.Button("Generate", variant="primary", elem_id="pt-generate")

    def _wire(self) -> None:
        """Let every control ask as soon as it changes. A question carries the whole setting.

        All questions share one queue, so that a slow answer cannot arrive after the answer to a later
        question.
        """
        setting = [self.prompt, self.method, self.tokens, self.seed, *self.sliders]
        setting += [self.picker] if self.picker else []
        shown = [self.message, self.samples, self.bars, self.front]
        self.setting, self.shown, quick = setting, shown, QUICK
        changes = [self.method.input, self.seed.input, self.tokens.submit, *(s.input for s in self.sliders)]
        changes += [self.picker.input] if self.picker else []
        gr.on([self.blocks.load, *changes], self.answer, setting, shown, **quick)
        gr.on([self.button.click, self.prompt.submit], self._generate, [self.lock, *setting],
              [self.seed, *shown], **quick)  # fmt: skip
        self.examples.click(self._example, [self.examples, *setting[1:]], [self.prompt, *shown], **quick)
        self.front.click(self._point, setting, [self.method, self.tokens, *self.sliders, *shown], **quick)

    def answer(self, prompt: Any, method: Any, tokens: Any, seed: Any, *weights: Any) -> list[Any]:
        """weights: followed by the input picture, where the page has a place for one."""
        weights, image = (weights[:-1], weights[-1]) if self.picker else (weights, "")
        try:
            done = self.answers.answer(prompt, weights, method, tokens, seed, image)
        except ParetuneError as error:
            # The previous answer stays on the page, with the reason above it.
            return [markup.message(str(error)), gr.skip(), gr.skip(), gr.skip()]
        except Exception as error:
            raise gr.Error("this could not be drawn; the server's own lines say why") from error
        return [markup.message(done.note), done.samples, done.bars, done.front]

    def _generate(self, kept: Any, prompt: Any, method: Any, tokens: Any, seed: Any,
                  *weights: Any) -> list[Any]:  # fmt: skip
        if kept:
            return [gr.skip(), *self.answer(prompt, method, tokens, seed, *weights)]
        chosen = secrets.randbelow(SEEDS)
        return [chosen, *self.answer(prompt, method, tokens, chosen, *weights)]

    def _example(self, place: Any, method: Any, tokens: Any, seed: Any, *weights: Any) -> list[Any]:
        number = asked.whole(place)
        if not 0 <= number < len(self.shown_examples):
            return [gr.skip(), markup.message("there is no such example"), *[gr.skip()] * 3]
        text = self.shown_examples[number]
        return [text, *self.answer(text, method, tokens, seed, *weights)]

    def _point(self, event: gr.EventData, prompt: Any, method: Any, tokens: Any, seed: Any,
               *weights: Any) -> list[Any]:  # fmt: skip
        # The event is the first argument, because Gradio fills in no argument after *weights.
        try:
            data, image = event._data, weights[len(self.sliders) :]
            method, weights = self.answers.point(data.get("point") if isinstance(data, dict) else None)
        except ParetuneError as error:
            kept = [gr.skip()] * (len(self.sliders) + 2)
            return [*kept, markup.message(f"this click set nothing: {error}"), *[gr.skip()] * 3]
        # The point was measured without tokens.
        answer = self.answer(prompt, method, "", seed, *weights, *image)
        return [method, "", *(round(weight, 2) for weight in weights), *answer]
