"""A model family of one's own, added from outside paretune: see docs/add-a-model.md."""
