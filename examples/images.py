"""Images to classify, from scikit-learn, folders or TensorFlow Datasets, and ResNets to learn them.

Example:
    >>> images = load(options)  # Of a command line with `add_options`.
    >>> model = small_resnet(images.shape, images.classes)
    >>> batches = training_batches(images, batch_size=32, seed=0, first=0, last=1000)
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn import datasets, model_selection

HELD_OUT = 0.1  # Of each class, where the source has no held-out part of its own.
HELD_OUT_NAMES = ("validation", "valid", "val", "test")
STREAM_BUFFER = 10_000  # Examples of TensorFlow Datasets, which are read in order, to draw from.
SMALL_SIZE, PAPER_SIZE = 32, 224  # Pixels a side.


class ImagesError(ValueError):
    """Images that can't be trained on; the message names the option and says why."""


@dataclass(frozen=True)
class Images:
    """Labelled images, with a held-out part.

    Attributes:
        train: Unbatched `tf.data.Dataset` of examples to train on, as `read` takes them: not
            decoded, so that they can be shuffled at little cost.
        validation: The same for the held-out examples.
        read: Function from an example to the image, float32 in [0, 1], and the label, an int.
        count: Number of examples to train on.
        buffer: Examples to shuffle among; `count` shuffles all.
        shape: Of an image: height, width, channels.
        classes: Number of classes.
        name: Where the images are from, and how many.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    read: Callable
    count: int
    buffer: int
    shape: tuple[int, int, int]
    classes: int
    name: str


# --- Where the images are from ---------------------------------------------------------------


def add_options(parser):
    """Adds the options that `load` reads to a command line that has `--scale`."""
    add = parser.add_argument
    add("--images", type=Path, metavar="DIR", help="folder of class folders; default: digits")
    add("--tfds", metavar="NAME", help="of TensorFlow Datasets, e.g. cifar10, imagenet2012")
    add("--tfds-dir", type=Path, metavar="DIR", help="where its prepared data lies or shall lie")
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help=f"for --images and --tfds; default: {SMALL_SIZE}, with --scale paper {PAPER_SIZE}",
    )


def load(options):
    """The images that the command line asks for: digits, unless it names a folder or a dataset.

    Args:
        options: Of a command line with `add_options`.

    Returns:
        An `Images`.

    Raises:
        ImagesError: If the options don't go together, or the images can't be used.
    """
    if options.images and options.tfds:
        raise ImagesError("--images and --tfds: one of the two, not both")
    for name, option in (("--tfds-dir", options.tfds_dir), ("--image-size", options.image_size)):
        if option is not None and not (options.tfds or (options.images and name != "--tfds-dir")):
            raise ImagesError(f"{name} needs --tfds{' or --images' * (name != '--tfds-dir')}")
    size = options.image_size or (PAPER_SIZE if options.scale == "paper" else SMALL_SIZE)
    if size < SMALL_SIZE:
        raise ImagesError(f"--image-size {size} must be at least {SMALL_SIZE}")
    if options.images:
        return folders(options.images, size)
    if options.tfds:
        return tensorflow_datasets(options.tfds, options.tfds_dir, size)
    if options.scale == "paper":
        raise ImagesError("--scale paper needs --images or --tfds: digits are too small for it")
    return digits()


def digits():
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels; a fifth is held out.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository (1998).
    """
    pixels, labels = datasets.load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32").reshape(-1, 8, 8, 1)
    parts = _split(pixels, labels.astype("int32"), held_out=0.2)
    return Images(
        *(tf.data.Dataset.from_tensor_slices(part) for part in parts),
        read=lambda image, label: (image, label),
        count=len(parts[0][0]),
        buffer=len(parts[0][0]),
        shape=(8, 8, 1),
        classes=10,
        name=_name("scikit-learn's digits", *(len(labels) for _, labels in parts)),
    )


def folders(folder, size):
    """Images in a folder of class folders, or in the folders `train` and `validation` of such.

    Without a held-out folder (`validation`, `valid`, `val` or `test`) a tenth of each class is held
    out. Images are cropped to a square and scaled.

    Args:
        folder: The folder.
        size: Pixels a side.

    Returns:
        An `Images`.

    Raises:
        ImagesError: If the folder holds no images in class folders, or the classes of its two
            parts differ.
    """
    folder = Path(folder)
    held_out = next((folder / n for n in HELD_OUT_NAMES if (folder / n).is_dir()), None)
    if (folder / "train").is_dir() and held_out is not None:
        (*train, classes), (*validation, others) = map(_index, (folder / "train", held_out))
        if classes != others:
            raise ImagesError(f"--images {folder}: train and {held_out.name} differ in classes")
        parts = train, validation
    else:
        paths, labels, classes = _index(folder)
        if np.bincount(labels).min() < 2:
            raise ImagesError(f"--images {folder}: a class has a single image; none to hold out")
        parts = _split(paths, labels, held_out=max(HELD_OUT, len(classes) / len(labels)))

    def read(path, label):
        image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
        return _scaled(image, size), label

    return Images(
        *(tf.data.Dataset.from_tensor_slices(tuple(part)) for part in parts),
        read=read,
        count=len(parts[0][0]),
        buffer=len(parts[0][0]),
        shape=(size, size, 3),
        classes=len(classes),
        name=_name(str(folder), *(len(labels) for _, labels in parts)),
    )


def tensorflow_datasets(name, data_dir, size):
    """A data set of TensorFlow Datasets with images and labels, made ready if it is not yet.

    Args:
        name: Its name there.
        data_dir: Folder of the prepared data; `None` for the usual one.
        size: Pixels a side.

    Returns:
        An `Images`.

    Raises:
        ImagesError: If there is no such data set, or it has no image, label, or held-out part.
    """
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except ImportError as error:
        packages = "tensorflow-datasets importlib_resources"
        raise ImagesError(f"--tfds {name}: {error}; pip install {packages}") from error
    except tfds.core.DatasetNotFoundError as error:
        raise ImagesError(f"--tfds {name}: {error}") from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ImagesError(f"--tfds {name}: has {', '.join(features)}; wanted: image, label")
    splits = builder.info.splits
    held_out = next((split for split in HELD_OUT_NAMES if split in splits), None)
    if "train" not in splits or held_out is None:
        raise ImagesError(f"--tfds {name}: has {', '.join(splits)}; wanted: train, validation")
    decoders = {"image": tfds.decode.SkipDecoding()}

    def read(example):
        image = _scaled(features["image"].decode_example(example["image"]), size)
        return image, tf.cast(example["label"], tf.int32)

    return Images(
        *(builder.as_dataset(split, decoders=decoders) for split in ("train", held_out)),
        read=read,
        count=splits["train"].num_examples,
        buffer=min(STREAM_BUFFER, splits["train"].num_examples),
        shape=(size, size, features["image"].shape[-1]),
        classes=features["label"].num_classes,
        name=_name(name, splits["train"].num_examples, splits[held_out].num_examples),
    )


def _index(folder):
    """Paths, labels and class names of a folder of class folders."""
    try:
        index = keras.utils.image_dataset_from_directory(folder, shuffle=False, verbose=False)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ImagesError(f"--images {folder}: {error}") from error
    names = [Path(path).relative_to(folder).parts[0] for path in index.file_paths]
    labels = np.array([index.class_names.index(name) for name in names], "int32")
    return np.array(index.file_paths), labels, index.class_names


def _split(examples, labels, held_out):
    parts = model_selection.train_test_split(
        examples, labels, test_size=held_out, random_state=0, stratify=labels
    )
    return tuple(parts[::2]), tuple(parts[1::2])


def _scaled(image, size):
    """The largest square in the middle of `image`, of `size` pixels a side, in [0, 1]."""
    image = keras.preprocessing.image.smart_resize(tf.cast(image, tf.float32), (size, size))
    return tf.clip_by_value(image / 255, 0, 1)


def _name(source, train, validation):
    return f"{source}, {train:,} images, {validation:,} held out"


# --- Batches ---------------------------------------------------------------------------------


def training_batches(images, batch_size, seed, first, last):
    """Batches number `first` to `last` of training, each a function of the seed and its number.

    So every optimizer sees the same, and a resumed run needs no state of the data to go on. Each
    pass over the images is in another order, and leaves out what does not fill a batch.
    TensorFlow's shuffle has a part in it: `keras.utils.set_random_seed` must be as before, too.

    Args:
        images: `Images`.
        batch_size: Images a batch.
        seed: An int.
        first: Number of the first batch.
        last: Number after the last batch's.

    Returns:
        A `tf.data.Dataset` of pairs of images and labels.

    Raises:
        ImagesError: If the images don't fill a batch.
    """
    in_pass = images.count // batch_size
    if not in_pass:
        raise ImagesError(f"{images.name}: too few for a batch of {batch_size}")
    passes = range(first // in_pass, -(-last // in_pass))

    def one_pass(number):
        order = int(np.random.default_rng((seed, number)).integers(2**31))
        examples = images.train.shuffle(images.buffer, order, reshuffle_each_iteration=False)
        return examples.take(in_pass * batch_size)

    examples = functools.reduce(tf.data.Dataset.concatenate, map(one_pass, passes))
    examples = examples.skip((first - passes.start * in_pass) * batch_size)
    return _batches(examples.take((last - first) * batch_size), images, batch_size)


def validation_batches(images, batch_size, count=None):
    """The first `count` held-out images, or all, always in the same order."""
    chosen = images.validation if count is None else images.validation.take(count)
    return _batches(chosen, images, batch_size)


def _batches(examples, images, batch_size):
    read = examples.map(images.read, num_parallel_calls=tf.data.AUTOTUNE)
    return read.batch(batch_size).prefetch(tf.data.AUTOTUNE)


# --- Models ----------------------------------------------------------------------------------


def small_resnet(shape, classes, blocks=1, width=16, augmentation=()):
    """The ResNet for small images: three stages of residual blocks, each at half the resolution.

    With `blocks` 3, 5, 7, 9 and 18 it is ResNet-20, -32, -44, -56 and -110 of the source.

    Args:
        shape: Of an image: height, width, channels; values in [0, 1].
        classes: Number of classes.
        blocks: Residual blocks a stage, of two 3 × 3 convolutions.
        width: Channels of the first stage; twice and four times as many in the others.
        augmentation: Layers to put in front, such as `photo_augmentation()`.

    Returns:
        A `keras.Model` that gives logits, not compiled.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Section
    4.2; the shortcuts that change shape are 1 × 1 convolutions.
    """
    inputs = keras.Input(shape)
    x = _front(inputs, augmentation)
    x = layers.ReLU()(_convolution(x, width, 3, 1))
    for stage in range(3):
        for block in range(blocks):
            x = _residual_block(x, width << stage, strides=2 if stage and not block else 1)
    outputs = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name=f"resnet{6 * blocks + 2}")


def resnet50(shape, classes, augmentation=()):
    """ResNet-50, the paper's, from scratch; arguments as of `small_resnet`."""
    inputs = keras.Input(shape)
    body = keras.applications.ResNet50(
        weights=None, input_shape=shape, classes=classes, classifier_activation=None
    )
    return keras.Model(inputs, body(_front(inputs, augmentation)), name="resnet50")


def photo_augmentation(seed=0):
    """Random mirroring and shifts by up to an eighth, as is usual for photographs."""
    return [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomTranslation(1 / 8, 1 / 8, seed=seed),
    ]


def _front(x, augmentation):
    for layer in augmentation:
        x = layer(x)
    return layers.Rescaling(2, offset=-1)(x)


def _residual_block(x, channels, strides):
    shortcut = x
    if strides > 1 or x.shape[-1] != channels:
        shortcut = _convolution(x, channels, 1, strides)
    x = layers.ReLU()(_convolution(x, channels, 3, strides))
    return layers.ReLU()(layers.Add()([_convolution(x, channels, 3, 1), shortcut]))


def _convolution(x, channels, size, strides):
    convolution = layers.Conv2D(
        channels, size, strides, "same", use_bias=False, kernel_initializer="he_normal"
    )
    return layers.BatchNormalization(momentum=0.9)(convolution(x))
