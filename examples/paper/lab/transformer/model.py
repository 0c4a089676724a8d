"""The Model Garden's Transformer-XL as a language model."""

import tensorflow as tf
import tf_keras
from official.nlp.modeling.layers.transformer_xl import TransformerXL
from official.nlp.modeling.networks.xlnet_base import RelativePositionEncoding

EMBEDDING_DEVIATION = 0.02  # Transformer-XL's.


class LanguageModel(tf_keras.Model):
    """The Model Garden's Transformer-XL between an embedding and the softmax that shares it.

    Args:
        vocabulary_size: Number of tokens.
        settings: The values of `SCALES`.
    """

    def __init__(self, vocabulary_size, settings):
        super().__init__()
        self.settings, self.hidden = settings, settings["hidden"]
        normal = tf_keras.initializers.RandomNormal(stddev=EMBEDDING_DEVIATION)
        self.embedding = tf_keras.layers.Embedding(vocabulary_size, self.hidden, normal)
        self.dropout = tf_keras.layers.Dropout(settings["dropout"])
        self.positions = RelativePositionEncoding(self.hidden)
        self.transformer = TransformerXL(
            vocabulary_size,
            settings["layers"],
            self.hidden,
            settings["heads"],
            self.hidden // settings["heads"],
            settings["inner"],
            settings["dropout"],
            attention_dropout_rate=0.0,  # As Transformer-XL's base model has it.
            initializer=normal,
            memory_length=settings["memory_length"],
            reuse_length=0,  # XLNet's.
        )
        self.bias = self.add_weight("softmax_bias", [vocabulary_size], initializer="zeros")

    def empty_memory(self):
        """A memory to begin a text with."""
        shape = (self.settings["batch_size"], self.settings["memory_length"], self.hidden)
        return [tf.zeros(shape)] * self.settings["layers"]

    def call(self, tokens, memory, remembered, training=None):
        """Predicts each next token.

        Args:
            tokens: int tensor of shape `(batch, length)`.
            memory: What each layer remembers of the text before: one tensor a layer, of shape
                `(batch, memory length, hidden)`.
            remembered: How many tokens the memory holds, at its end; before them it is empty.
            training: Whether dropout is on.

        Returns:
            Logits of shape `(batch, length, vocabulary)`, and the memory for the next segment.
        """
        batch, length = tokens.shape
        kept = memory[0].shape[1]
        query, key = tf.range(length)[:, None], tf.range(kept + length)
        visible = (key <= kept + query) & (key >= kept - remembered)
        # From the farthest a query looks back to itself.
        distances = tf.range(kept + length, -1, -1, tf.float32)
        content = self.dropout(self.embedding(tokens) * self.hidden**0.5)
        content, memory = self.transformer(
            content,
            self.dropout(self.positions(distances, batch)),
            state=memory,
            content_attention_mask=visible[None, None],
        )
        logits = tf.einsum("bth,vh->btv", content, self.embedding.embeddings)
        return logits + self.bias, memory


def build_model(vocabulary_size, settings, seed):
    """A `LanguageModel` with the initial weights of that seed."""
    tf_keras.utils.set_random_seed(seed)
    model = LanguageModel(vocabulary_size, settings)
    tokens = tf.zeros((settings["batch_size"], settings["target_length"]), tf.int32)
    model(tokens, model.empty_memory(), 0)
    return model
