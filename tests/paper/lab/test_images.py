import argparse

import keras
import numpy as np
import pytest
from lab import images, resnets
from lab import options as shared
from sklearn import datasets

from keras_acclip.noise import data as batches


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", default="small")
    shared.add_images(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    shared.check_images(parser, options)
    return options


def load(*arguments):
    return images.load(parse(*arguments))


def read_all(loaded, part):
    return [(image.numpy(), int(label)) for image, label in part.map(loaded.read)]


def assert_coloured(examples, count):
    """There are `count` examples of each class, each image all in its class's colour."""
    np.testing.assert_array_equal(np.bincount([label for _, label in examples]), count)
    for image, label in examples:
        colour = np.array(list(COLOURS.values())[label]) / 255
        np.testing.assert_allclose(image, np.broadcast_to(colour, image.shape), atol=1e-6)


def write_images(folder, colours, count, size=(40, 60)):
    """A folder a class; every image of a class has its colour, and a middle square marked."""
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((*size, 3), colour, "uint8")
            image[0, 0] = i  # So that no two files are alike.
            keras.utils.save_img(folder / name / f"{i:02}.png", image, scale=False)


COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


# --- Where the images are from ---


def test_digits_are_scikit_learns_all_of_them_once():
    loaded = load()
    train, held_out = (read_all(loaded, part) for part in (loaded.train, loaded.validation))
    assert (loaded.shape, loaded.classes, loaded.count) == ((8, 8, 1), 10, len(train))
    assert loaded.name == "scikit-learn's digits, 1,437 images, 360 held out"
    found = sorted((label, *(16 * image).ravel()) for image, label in train + held_out)
    pixels, labels = datasets.load_digits(return_X_y=True)
    assert found == sorted((label, *row) for label, row in zip(labels, pixels, strict=True))
    shares = [np.bincount([label for _, label in part]) for part in (train, held_out)]
    np.testing.assert_allclose(shares[0] / 1437, shares[1] / 360, atol=0.003)


def test_a_folder_of_class_folders_is_split_by_class(tmp_path):
    write_images(tmp_path, COLOURS, 20)
    loaded = load("--images", tmp_path, "--image-size", 36)
    assert (loaded.shape, loaded.classes, loaded.count) == ((36, 36, 3), 3, 54)
    for part, count in ((loaded.train, 18), (loaded.validation, 2)):
        assert_coloured(read_all(loaded, part), count)  # The marked corner is cropped away.


@pytest.mark.parametrize("held_out", images.HELD_OUT_NAMES)
def test_a_held_out_folder_is_the_held_out_part(tmp_path, held_out):
    write_images(tmp_path / "train", COLOURS, 3)
    write_images(tmp_path / held_out, COLOURS, 2)
    loaded = load("--images", tmp_path)
    assert loaded.name == f"{tmp_path}, 9 images, 6 held out"
    assert [label for _, label in read_all(loaded, loaded.validation)] == [0, 0, 1, 1, 2, 2]


@pytest.fixture
def prepared(tmp_path):
    """A data set of TensorFlow Datasets, made ready."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("importlib_resources")  # Which that needs but does not ask for.

    class Colours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=list(COLOURS)),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(8), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for label, colour in enumerate(COLOURS.values()):
                for i in range(count):
                    image = np.full((40, 60, 3), colour, "uint8")
                    yield f"{label}-{i}", {"image": image, "label": label}

    Colours(data_dir=tmp_path).download_and_prepare()
    return tmp_path


def test_tensorflow_datasets_are_read_where_they_lie(prepared):
    loaded = load("--tfds", "colours", "--tfds-dir", prepared)
    assert loaded.name == "colours, 24 images, 6 held out"
    assert (loaded.shape, loaded.classes, loaded.count) == ((32, 32, 3), 3, 24)
    for part, count in ((loaded.train, 8), (loaded.validation, 2)):
        assert_coloured(read_all(loaded, part), count)
    for seed in (0, 1):
        (x, y), *_ = read_batches(loaded, seed, 0, 1, batch_size=24)
        np.testing.assert_array_equal(np.bincount(y), 8)
        assert x.shape == (24, 32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "no/such"], "--images no/such: "),
        (["--tfds", "no_such_data"], "--tfds no_such_data: "),
    ],
)
def test_unusable_images_are_an_error_that_names_the_option(arguments, message):
    with pytest.raises(images.ImagesError, match=message):
        load(*arguments)


def test_unusable_folders_are_an_error_that_names_them(tmp_path):
    (tmp_path / "empty" / "red").mkdir(parents=True)
    with pytest.raises(images.ImagesError, match=r"--images .*empty"):
        load("--images", tmp_path / "empty")
    write_images(tmp_path / "single", COLOURS, 1)
    with pytest.raises(images.ImagesError, match="a class has a single image"):
        load("--images", tmp_path / "single")
    write_images(tmp_path / "two" / "train", COLOURS, 2)
    write_images(tmp_path / "two" / "val", {"red": (255, 0, 0)}, 2)
    with pytest.raises(images.ImagesError, match="train and val differ in classes"):
        load("--images", tmp_path / "two")


# --- Batches ---


def read_batches(loaded, seed, first, last, batch_size=100):
    keras.utils.set_random_seed(0)
    made = images.training_batches(loaded, batch_size, seed, first, last)
    return [(x.numpy(), y.numpy()) for x, y in made]


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    loaded = images.digits()
    whole, resumed, other = (
        read_batches(loaded, 1, 0, 40),
        read_batches(loaded, 1, 31, 40),
        read_batches(loaded, 2, 0, 40),
    )
    assert len(whole) == 40
    for (x, y), (resumed_x, resumed_y) in zip(whole[31:], resumed, strict=True):
        np.testing.assert_array_equal(resumed_x, x)
        np.testing.assert_array_equal(resumed_y, y)
    assert all((a != b).any() for (a, _), (b, _) in zip(whole, other, strict=True))


def test_the_noise_instrument_reads_the_same_batches_every_time():
    made = images.training_batches(images.digits(), 100, 1, 0, 20)
    readings = [list(batches.open_batches(made).read()) for _ in range(2)]
    assert len(readings[0]) == 20
    for (a, _, _), (b, _, _) in zip(*readings, strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_pass_takes_every_image_at_most_once_in_a_new_order():
    whole = read_batches(images.digits(), 1, 0, 28)  # Two passes over 1,437 images.
    passes = [
        np.concatenate([x for x, _ in part]).reshape(1400, -1) for part in (whole[:14], whole[14:])
    ]
    everything = datasets.load_digits().data / 16
    most = {
        row.tobytes(): count
        for row, count in zip(*np.unique(everything, axis=0, return_counts=True), strict=True)
    }
    for rows in passes:
        unique, counts = np.unique(rows.astype(float), axis=0, return_counts=True)
        assert all(count <= most[row.tobytes()] for row, count in zip(unique, counts, strict=True))
    assert (passes[0] != passes[1]).any(1).mean() > 0.99


def test_batches_that_cannot_be_filled_are_an_error():
    with pytest.raises(images.ImagesError, match="too few for a batch of 2000"):
        images.training_batches(images.digits(), 2000, 0, 0, 1)


def test_validation_batches_are_always_the_same():
    loaded = images.digits()
    first, second = (list(images.validation_batches(loaded, 64)) for _ in range(2))
    assert sum(len(y) for _, y in first) == 360
    assert sum(len(y) for _, y in images.validation_batches(loaded, 64, 100)) == 100
    for (a, _), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Models ---


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 0.27e6), (5, 0.46e6), (9, 0.85e6)])
def test_small_resnet_has_the_parameters_of_its_source(blocks, parameters):
    model = resnets.small_resnet((32, 32, 3), 10, blocks)
    assert model.count_params() == pytest.approx(parameters, rel=0.03)  # Table 6 of the paper.
    assert model.name == f"resnet{6 * blocks + 2}"
    convolutions = [layer for layer in model.layers if layer.name.startswith("conv2d")]
    assert len([c for c in convolutions if c.kernel_size == (3, 3)]) + 1 == 6 * blocks + 2
    assert model.layers[-2].input.shape == (None, 8, 8, 64)


def test_resnet50_is_the_papers_with_fresh_weights():
    shape = (224, 224, 3)
    model = resnets.resnet50(shape, 1000)
    assert model.output_shape == (None, 1000)
    assert model.count_params() == 25_636_712
    first = [w for w in model.get_layer("resnet50").weights if w.path.endswith("conv1_conv/kernel")]
    assert np.std(first[0]) > 0


def test_augmentation_is_for_training_alone():
    model = resnets.small_resnet((32, 32, 3), 3, augmentation=resnets.photo_augmentation())
    x = np.random.default_rng(0).random((4, 32, 32, 3), "float32")
    np.testing.assert_array_equal(model(x, training=False), model(x, training=False))
    assert np.abs(np.asarray(model(x, training=True)) - model(x, training=True)).max() > 1e-3


@pytest.mark.slow
def test_small_resnet_learns_digits():
    loaded = images.digits()
    model = resnets.small_resnet(loaded.shape, loaded.classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(sgd, loss, metrics=["accuracy"], jit_compile=False)
    model.fit(images.training_batches(loaded, 32, 0, 0, 88), shuffle=False, verbose=0)
    assert model.evaluate(images.validation_batches(loaded, 64), verbose=0)[1] > 0.9
