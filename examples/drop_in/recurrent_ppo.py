# SPDX-License-Identifier: BSD-3-Clause
"""RecurrentPPO of sb3-contrib on CartPole without velocities, with and without fastrnn
====================================================================================

::

    pip install sb3-contrib "fastrnn[torch]"
    python recurrent_ppo.py [--quick]

The agent sees the cart's position and the pole's angle only, so it has to remember.
The program is sb3-contrib's own, with its default network (LSTMs of 256 units for actor
and critic); the one line is marked. Both runs have the same seed.
"""

import argparse
import time

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

import fastrnn.torch


class PositionsOnly(gymnasium.ObservationWrapper):
    """CartPole's observation without the two velocities."""

    def __init__(self, env):
        super().__init__(env)
        space = env.observation_space
        self.observation_space = gymnasium.spaces.Box(
            space.low[::2], space.high[::2], dtype=np.float32
        )

    def observation(self, observation):
        return observation[::2]


class Curve(BaseCallback):
    """The mean length of the last hundred episodes after each rollout."""

    def __init__(self):
        super().__init__()
        self.lengths = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        recent = [episode["l"] for episode in self.model.ep_info_buffer]
        self.lengths.append(np.mean(recent) if recent else float("nan"))


def train(steps, accelerated, seed=0):
    """The learning curve, and frames per second, of time and of CPU time."""
    envs = make_vec_env("CartPole-v1", n_envs=8, seed=seed, wrapper_class=PositionsOnly)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        n_steps=128,
        batch_size=256,
        learning_rate=1e-3,
        ent_coef=0.001,
        seed=seed,
        device="cpu",
    )
    if accelerated:
        fastrnn.torch.accelerate(model.policy)  # the one line
    curve = Curve()
    start = time.perf_counter(), time.process_time()
    model.learn(steps, callback=curve)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    return curve.lengths, *[model.num_timesteps / s for s in seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rollouts only")
    parser.add_argument("--steps", type=int, default=40960)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = 3 * 1024 if args.quick else args.steps
    before, fps_before, cpu_before = train(steps, accelerated=False)
    after, fps_after, cpu_after = train(steps, accelerated=True)
    print("frames    episode length: PyTorch   fastrnn")
    for at, (theirs, ours) in enumerate(zip(before, after, strict=True), start=1):
        if at % max(1, len(before) // 10) == 0:
            print(f"{at * 1024:6}    {theirs:23.1f} {ours:9.1f}")
    print(
        f"frames per second, {args.threads} threads: PyTorch {fps_before:.0f}, "
        f"fastrnn {fps_after:.0f}: {fps_after / fps_before:.2f}x\n"
        f"by CPU time: PyTorch {cpu_before:.0f}, fastrnn {cpu_after:.0f}: "
        f"{cpu_after / cpu_before:.2f}x"
    )


if __name__ == "__main__":
    main()
