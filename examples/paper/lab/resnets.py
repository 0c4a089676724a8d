"""ResNets for images, from scratch."""

import keras
from keras import layers


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
