"""What the scripts of `examples/paper` share; no part of the package, and free to change.

- `script`, `options`, `plans`: command lines, and which runs they ask for; they load in no time.
- `search`: the search of a study for rates and betas.
- `resuming`: what is done stays done, whenever a script is stopped.
- `runs`: runs made in several processes, and reported on.
- `training`, `stages`: Keras's schedule, progress and measurements along a run.
- `comparison`, `tables`, `figures`: what runs come to, in numbers, words and pictures.
- `token_rows`, `masked_lm`, `bert`, `images`, `resnets`: data, and models to learn them.
- `garden`: runs of the TensorFlow Model Garden.
- `theory`: clipped and unclipped SGD on functions with known noise.
- `ablation`, `histograms`, `rmsprop`, `transformer`: the parts of one script each.
"""
