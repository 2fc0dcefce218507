"""A reward of one's own in ten lines: how much of a picture is one flat colour, as a cost."""


class Flatness:
    name = "flatness"
    range = (0.0, 1.0)
    higher_is_better = False

    def score(self, samples, prompts):
        spread = samples.flatten(2).std(dim=2).mean(dim=1)  # [B, 3, H, W] -> [B]
        return (1 - 4 * spread).clamp(0, 1)
