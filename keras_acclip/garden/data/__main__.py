"""Runs `keras_acclip.garden.data.command`."""

import os
import sys

from keras_acclip.garden.data import command

if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # Nothing here is work for a GPU.
    sys.exit(command.main())
