"""`charrnn` that saves after every step; what torchrun starts in the trials. `dragging`: each step takes a tenth of a second."""

import os
import time

from charrnn import cli, training

training.SAVE_EVERY = training.SAVE_LATEST = 0.0
training.SAMPLE_EVERY = 1e9
if drag := float(os.environ.get("DRAG", "0")):
    step = training.Trainer.step

    def slow(self):
        time.sleep(drag)
        return step(self)

    training.Trainer.step = slow
cli.main()
