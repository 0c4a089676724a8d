"""The networks that are compared, and when they are measured."""

# In ninths of training: at 36,000 steps, Figure 2's 4,000, 12,000, 20,000, 36,000, and 28,000.
STAGES = (0, 1, 3, 5, 7, 9)
FIGURE_4 = {  # Name: whether with attention, whether on text. Row by row, as in the paper.
    "attention, text": (True, True),
    "no attention, text": (False, True),
    "attention, Gaussian input": (True, False),
    "no attention, Gaussian input": (False, False),
}
RESNET = "ResNet, images"
NETWORKS = (*FIGURE_4, RESNET)
PAIRS = (
    ("attention, text", "no attention, text"),
    ("attention, Gaussian input", "no attention, Gaussian input"),
    ("attention, text", "attention, Gaussian input"),
    ("no attention, text", "no attention, Gaussian input"),
)


def slug(name):
    """A network's name as part of a file's name."""
    return name.lower().replace(",", "").replace(" ", "-")
