"""The card of ``bicubic``, which is a model without files: the baseline, served like the others."""

import base64

from superres.models.card import Example, Geometry, ModelCard

BICUBIC = ModelCard(
    name="bicubic",
    family="bicubic",
    network="bicubic",
    # At scale 1 the network changes nothing, and the enhancer resizes its output to any scale.
    geometry=Geometry(domain="hr", scale=1, halo=0, largest_tile=512),
    parameters=0,
    multiply_adds_per_output_pixel=0,
    format="bicubic",
    files={},
    example=Example(
        height=1,
        width=1,
        tile=base64.b64encode(bytes(3)).decode(),
        answer=base64.b64encode(bytes(3 * 4)).decode(),
    ),
    weights_sha256="",
    training=None,
    reproducible=True,
    reason="",
).sealed()
