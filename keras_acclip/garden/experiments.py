"""Experiments of the Model Garden that train with the paper's optimizers, or with any other.

Importing this module registers `acclip/bert_pretraining`, `acclip/bert_pretraining_text`,
`acclip/bert_squad`, `acclip/bert_sentence_prediction` and `acclip/resnet_imagenet`. Each starts
with ACClip and holds the values of every shipped optimizer file, so that the baseline is one
override away: `trainer.optimizer_config.optimizer.type=adamw`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
import yaml
from official.core import config_definitions, exp_factory, task_factory
from official.modeling import optimization
from official.nlp.configs import bert, finetuning_experiments, pretraining_experiments  # noqa: F401
from official.nlp.data import pretrain_text_dataloader
from official.nlp.tasks import masked_lm, sentence_prediction
from official.vision.configs import image_classification  # noqa: F401

from keras_acclip.garden import configs
from keras_acclip.garden.configs import optimizers  # noqa: F401  (registers them)

__all__ = [
    "MaskedLMConfig",
    "MaskedLMTask",
    "SentencePredictionConfig",
    "SentencePredictionTask",
    "bert_pretraining",
    "bert_pretraining_text",
    "bert_sentence_prediction",
    "bert_squad",
    "resnet_imagenet",
]

# The last one stays chosen.
_OPTIMIZERS = ("sgd", "adamw", "gclip", "acclip")


@dataclasses.dataclass
class MaskedLMConfig(masked_lm.MaskedLMConfig):
    """Config of BERT's pretraining task.

    Attributes:
        model: The encoder and its heads. A head with `inner_dim: null` has a hidden layer as wide
            as the encoder, so that one file sets a model for every task.
        scale_loss: Whether the gradient of several replicas is their mean, not their sum.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> config = experiments.MaskedLMConfig(scale_loss=False)
    >>> config.model.cls_heads[0].name
    'next_sentence'
    """

    model: bert.PretrainerConfig = dataclasses.field(
        default_factory=lambda: bert.PretrainerConfig(
            cls_heads=[
                bert.ClsHeadConfig(
                    inner_dim=None,  # pyright: ignore[reportArgumentType]
                    num_classes=2,
                    dropout_rate=0.1,
                    name="next_sentence",
                )
            ]
        )
    )
    scale_loss: bool = True


@task_factory.register_task_cls(MaskedLMConfig)
class MaskedLMTask(masked_lm.MaskedLMTask):
    """The Model Garden's masked-LM task, with heads as wide as the encoder and a scaled loss.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> config = experiments.MaskedLMConfig()
    >>> config.model.encoder.bert.override({"num_layers": 1, "hidden_size": 8, "vocab_size": 50})
    >>> config.model.encoder.bert.override({"num_attention_heads": 2, "intermediate_size": 8})
    >>> model = experiments.MaskedLMTask(config).build_model()
    >>> sorted(model.output_shape)
    ['encoder_outputs', 'mlm_logits', 'next_sentence', 'pooled_output', 'sequence_output']
    """

    def build_model(self, params: bert.PretrainerConfig | None = None) -> tf_keras.Model:
        """Returns the pretraining model.

        Args:
            params: The model's config. Default: the task's.
        """
        config = (params or self.task_config.model).replace()
        encoder: Any = config.encoder.get()
        for head in config.cls_heads or []:
            if head.inner_dim is None:
                head.inner_dim = encoder.hidden_size
        model = super().build_model(config)
        # Made in the first step instead, on a replica's thread, the heads would not heed the seed.
        model(model.inputs)
        return model

    def train_step(
        self,
        inputs: Any,
        model: tf_keras.Model,
        optimizer: Any,
        metrics: Sequence[tf_keras.metrics.Metric],
    ) -> dict[str, Any]:
        """Takes a step as the Model Garden's tasks do: with the loss scaled, which its own lacks.

        Args:
            inputs: A batch, as a dict of tensors.
            model: The pretraining model.
            optimizer: What trains it; one of `tf_keras.mixed_precision` scales the loss.
            metrics: What is updated.

        Returns:
            The loss.
        """
        scales = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = self.build_losses(inputs, outputs, metrics, model.losses)
            part = loss
            if self.task_config.scale_loss:
                part = loss / tf.distribute.get_strategy().num_replicas_in_sync
            if scales:
                part = optimizer.get_scaled_loss(part)
        variables = model.trainable_variables
        gradients = tape.gradient(part, variables)
        if scales:
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        self.process_metrics(metrics, inputs, outputs)
        return {self.loss: loss}


@dataclasses.dataclass
class SentencePredictionConfig(sentence_prediction.SentencePredictionConfig):
    """Config of the Model Garden's sentence prediction, whose numbers are compared one by one.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> config = experiments.SentencePredictionConfig()
    >>> config.override({"model": {"num_classes": 2}})
    >>> config.model.num_classes
    2
    """


@task_factory.register_task_cls(SentencePredictionConfig)
class SentencePredictionTask(sentence_prediction.SentencePredictionTask):
    """The Model Garden's sentence prediction, right also where numbers are predicted.

    The Model Garden's subtracts every label of a batch from every prediction, so that its models
    learn the labels' mean.

    Example:

    >>> import tensorflow as tf
    >>> from keras_acclip.garden import experiments
    >>> config = experiments.SentencePredictionConfig()
    >>> config.override({"model": {"num_classes": 1}})  # Numbers are predicted.
    >>> task = experiments.SentencePredictionTask(config)
    >>> labels = {task.label_field: tf.constant([1.0, 2.0])}
    >>> float(task.build_losses(labels, tf.constant([[1.0], [4.0]])))  # (0² + 2²)/2
    2.0
    """

    def build_losses(
        self, labels: Any, model_outputs: tf.Tensor, aux_losses: Any = None
    ) -> tf.Tensor:
        """Returns the mean loss of a batch.

        Args:
            labels: Dict with the labels, of shape `(batch,)`, under the task's `label_field`.
            model_outputs: Logits, of shape `(batch, num_classes)`.
            aux_losses: Losses that the model adds.
        """
        if self.task_config.model.num_classes == 1:
            labels = {self.label_field: tf.reshape(labels[self.label_field], [-1, 1])}
        return super().build_losses(labels, model_outputs, aux_losses)


_Factory = Callable[[], config_definitions.ExperimentConfig]


def _experiment(name: str) -> Callable[[_Factory], _Factory]:
    """Registers an experiment, unless an earlier import of this module has done so."""

    def register(factory: _Factory) -> _Factory:
        with contextlib.suppress(KeyError):
            exp_factory.register_config_factory(name)(factory)
        return factory

    return register


def _with_our_optimizers(
    experiment: config_definitions.ExperimentConfig, *names: str
) -> config_definitions.ExperimentConfig:
    """Puts our choice of optimizers into an experiment, then layers the shipped files `names`."""
    experiment.trainer.optimizer_config = optimization.OptimizationConfig(
        {"warmup": {"type": "polynomial"}}
    )
    for name in (*_OPTIMIZERS, *names):
        with open(configs.find(name), encoding="utf-8") as file:
            experiment.override(yaml.safe_load(file))
    return experiment


@_experiment("acclip/bert_pretraining")
def bert_pretraining() -> config_definitions.ExperimentConfig:
    """BERT's masked-LM and next-sentence pretraining, from TFRecords (Devlin et al., 2019).

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining()
    >>> experiment.trainer.optimizer_config.optimizer.type
    'acclip'
    """
    experiment = exp_factory.get_exp_config("bert/pretraining")
    data = experiment.task
    experiment.task = MaskedLMConfig(
        train_data=data.train_data, validation_data=data.validation_data
    )
    return _with_our_optimizers(experiment, "pretraining_128")


@_experiment("acclip/bert_pretraining_text")
def bert_pretraining_text() -> config_definitions.ExperimentConfig:
    """BERT's pretraining from raw text: tensorflow-text masks it anew in every epoch.

    `input_path` names TFRecords of `tf.train.Example`s with a field `text`, a document each, its
    sentences on lines; `vocab_file_path` the vocabulary.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_pretraining_text()
    >>> experiment.override({"task": {"train_data": {"vocab_file_path": "data/vocab.txt"}}})
    >>> experiment.task.train_data.vocab_file_path
    'data/vocab.txt'
    """
    experiment = exp_factory.get_exp_config("bert/text_wiki_pretraining")
    experiment.runtime.enable_xla = True
    data = pretrain_text_dataloader.BertPretrainTextDataConfig
    experiment.task = MaskedLMConfig(
        train_data=data(is_training=True), validation_data=data(is_training=False)
    )
    return _with_our_optimizers(experiment, "pretraining_128")


@_experiment("acclip/bert_squad")
def bert_squad() -> config_definitions.ExperimentConfig:
    """Extractive question answering on SQuAD, as in the BERT paper (Devlin et al., 2019).

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_squad()
    >>> experiment.override({"task": {"init_checkpoint": "runs/pretrained"}})
    >>> experiment.task.init_checkpoint
    'runs/pretrained'
    """
    return _with_our_optimizers(exp_factory.get_exp_config("bert/squad"), "squad")


@_experiment("acclip/bert_sentence_prediction")
def bert_sentence_prediction() -> config_definitions.ExperimentConfig:
    """Classification of a sentence or a pair; set `num_classes`, steps and warm-up for the data.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.bert_sentence_prediction()
    >>> experiment.override({"task": {"model": {"num_classes": 2}}})
    >>> experiment.task.model.num_classes
    2
    """
    experiment = exp_factory.get_exp_config("bert/sentence_prediction")
    data = experiment.task
    experiment.task = SentencePredictionConfig(
        train_data=data.train_data, validation_data=data.validation_data
    )
    experiment = _with_our_optimizers(experiment)
    # As in the BERT paper's GLUE runs, the steps being those of MNLI, the largest: 3 epochs.
    steps = 3 * 392_702 // 32
    experiment.override(
        {
            "task": {"model": {"num_classes": 3}},
            "trainer": {
                "train_steps": steps,
                "optimizer_config": _schedule(3e-5, steps, steps // 10),
            },
        }
    )
    return experiment


@_experiment("acclip/resnet_imagenet")
def resnet_imagenet() -> config_definitions.ExperimentConfig:
    """ResNet-50 on ImageNet: the Model Garden's model, data and 90 epochs, linearly decayed.

    Example:

    >>> from keras_acclip.garden import experiments
    >>> experiment = experiments.resnet_imagenet()
    >>> experiment.override({"trainer": {"optimizer_config": {"optimizer": {"type": "sgd"}}}})
    >>> experiment.trainer.optimizer_config.optimizer.type
    'sgd'
    """
    experiment = exp_factory.get_exp_config("resnet_imagenet")
    steps = experiment.trainer.train_steps
    experiment = _with_our_optimizers(experiment)
    experiment.trainer.optimizer_config.override(_schedule(1e-3, steps, steps // 18))
    return experiment


def _schedule(learning_rate: float, steps: int, warmup_steps: int) -> dict[str, Any]:
    return {
        "learning_rate": {
            "polynomial": {"initial_learning_rate": learning_rate, "decay_steps": steps}
        },
        "warmup": {"polynomial": {"warmup_steps": warmup_steps}},
    }
