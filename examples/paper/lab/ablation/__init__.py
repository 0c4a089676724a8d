"""ACClip taken apart: its variants, how they train, and what each part contributes."""
