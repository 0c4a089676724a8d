"""Images to classify, from scikit-learn, folders or TensorFlow Datasets.

Example:
    >>> images = load(options)  # Of a command line with `options.add_images`.
    >>> batches = training_batches(images, batch_size=32, seed=0, first=0, last=1000)
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from . import digits as handwritten

HELD_OUT = 0.1  # Of each class, where the source has no held-out part of its own.
HELD_OUT_NAMES = ("validation", "valid", "val", "test")
STREAM_BUFFER = 10_000  # Examples of TensorFlow Datasets, which are read in order, to draw from.


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


def load(options):
    """The images that the command line asks for: digits, unless it names a folder or a dataset.

    Args:
        options: Of a command line with `options.add_images`, checked.

    Returns:
        An `Images`.

    Raises:
        ImagesError: If the images can't be used.
    """
    if options.images:
        return folders(options.images, options.image_size)
    if options.tfds:
        return tensorflow_datasets(options.tfds, options.tfds_dir, options.image_size)
    return digits()


def digits():
    """scikit-learn's handwritten digits; a fifth is held out."""
    parts = handwritten.arrays()
    return Images(
        *(tf.data.Dataset.from_tensor_slices(part) for part in parts),
        read=lambda image, label: (image, label),
        count=len(parts[0][0]),
        buffer=len(parts[0][0]),
        shape=handwritten.SHAPE,
        classes=handwritten.CLASSES,
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
        share = max(HELD_OUT, len(classes) / len(labels))
        parts = handwritten.stratified(paths, labels, held_out=share)

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
