"""The lecture's program as a learner writes it in Keras 3, on JAX: ``train_on_batch`` of D, then of G through D.

    python benchmarks/keras_mlp.py THREADS SECONDS                        # prints the seconds of a step on noise
    python benchmarks/keras_mlp.py THREADS SECONDS IMAGES SAMPLES SEED    # trains on IMAGES.npy, (N, 28, 28) bytes,
                                                                          # and writes 10,000 to SAMPLES.npy

Frozen, for ``throughput.py`` and ``quality.py``; needs ``pip install keras jax``.
"""

import os
import sys
import time

threads = int(sys.argv[1])
os.environ["KERAS_BACKEND"] = "jax"
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # how XLA is told its threads

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

BATCH = 128
data = sys.argv[3:]  # of a training: images, samples and seed
keras.utils.set_random_seed(int(data[2]) if data else 0)


def hidden(*widths: int, dropout: float = 0.0) -> list[layers.Layer]:
    made: list[layers.Layer] = []
    for width in widths:
        made += [layers.Dense(width), layers.LeakyReLU(negative_slope=0.2)]
        if dropout:
            made.append(layers.Dropout(dropout))
    return made


def adam() -> keras.optimizers.Adam:
    return keras.optimizers.Adam(2e-4, beta_1=0.5)


G = keras.Sequential([keras.Input((100,)), *hidden(256, 512, 1024), layers.Dense(784, activation="tanh")])
D = keras.Sequential([keras.Input((784,)), *hidden(1024, 512, 256, dropout=0.3), layers.Dense(1, activation="sigmoid")])
D.compile(loss="binary_crossentropy", optimizer=adam())
D.trainable = False
z = keras.Input((100,))
gan = keras.Model(z, D(G(z)))
gan.compile(loss="binary_crossentropy", optimizer=adam())

rng = np.random.default_rng(int(data[2]) if data else 0)
if data:
    x = np.load(data[0]).reshape(-1, 784).astype(np.float32) / 127.5 - 1
else:
    x = rng.random((60_000, 784), dtype=np.float32) * 2 - 1


def step() -> None:
    noise = rng.normal(0, 1, (BATCH, 100)).astype(np.float32)
    real = x[rng.integers(0, len(x), BATCH)]
    fake = G.predict(noise, verbose=0)
    y = np.zeros(2 * BATCH, np.float32)
    y[:BATCH] = 0.9
    D.trainable = True
    D.train_on_batch(np.concatenate([real, fake]), y)
    D.trainable = False
    gan.train_on_batch(noise, np.ones(BATCH, np.float32))


for _ in range(0 if data else 5):
    step()
begin, steps = time.perf_counter(), 0
while (passed := time.perf_counter() - begin) < float(sys.argv[2]):
    step()
    steps += 1
print(passed / steps)  # seconds of a step
if data:
    made = G.predict(rng.normal(0, 1, (10_000, 100)).astype(np.float32), verbose=0)
    np.save(data[1], ((made + 1) * 127.5).round().astype(np.uint8).reshape(-1, 1, 28, 28))
