"""scikit-learn's handwritten digits as arrays; TensorFlow is not loaded."""

from sklearn import datasets, model_selection

SHAPE, CLASSES = (8, 8, 1), 10


def arrays():
    """1,797 handwritten digits of 8 × 8 pixels in [0, 1]; a fifth of each is held out.

    Returns:
        Images, float32 of shape `(n, 8, 8, 1)`, and labels, int32, to train on; the same held out.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository (1998).
    """
    pixels, labels = datasets.load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32").reshape(-1, *SHAPE)
    return stratified(pixels, labels.astype("int32"), held_out=0.2)


def stratified(examples, labels, held_out):
    """Examples and labels to train on, and a part held out, of each class as much."""
    parts = model_selection.train_test_split(
        examples, labels, test_size=held_out, random_state=0, stratify=labels
    )
    return tuple(parts[::2]), tuple(parts[1::2])
