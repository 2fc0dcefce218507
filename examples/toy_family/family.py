"""The record: light, so that a recipe is planned and refused without loading the model."""

from paretune.models.family import Family
from paretune.models.options import FlowOptions
from paretune.models.shapes import Shape, pixel_sides


def shape(model, transformer, vae):
    """Pixels are the latents: [3, h, w], one token a pixel."""
    height, width = pixel_sides(model, transformer["side"], transformer["side"])
    return Shape(height, width, (3, height, width), height * width)


FAMILY = Family(
    name="toy",
    medium="pictures",
    policy="toy_family.policy:ToyPolicy",
    options=FlowOptions,
    pipelines=("ToyPipeline",),  # the _class_name in a folder's model_index.json
    parts=("transformer",),
    transformer="ToyTransformer",
    libraries=("toy_family",),
    shape=shape,
    text_tokens=lambda model: 1,
    sampling=(8, 1.0),
)
