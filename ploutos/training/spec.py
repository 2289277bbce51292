"""Settings of the agents and of what a training run leaves behind; light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ploutos.envs.spec import ActionKind
from ploutos.specs import Spec

Device = Literal["auto", "cpu", "cuda"]
"""Where a network is trained, as torch names it; `auto` is `cuda` where torch can use it."""


class SpeedSpec(Spec):
    """How training is computed. Nothing here but `bf16` changes a number beyond rounding."""

    fast_loop: bool = True
    """Our rollout and update instead of stable-baselines3's: fewer Python calls per step, one tensor for the actions of all
    symbols, a rollout kept as tensors on the device; RecurrentPPO learns from whole accounts' sequences, not padded pieces."""
    share_rows: bool = True
    """Multiply a bar's features by the first layer once per minibatch and not once per account (CPU, `fast_loop`). Has no effect where a
    shared network is one compiled function."""
    fast_matmul: bool = True
    """Torch's `medium` matrix products, if their error, measured at start-up, is that of float32."""
    reuse_memory: bool = True
    """Keep freed memory for the next minibatch instead of handing it to the system (glibc; holds for the whole process)."""
    bf16: bool = False
    """bfloat16 matrix products (`fast_loop`): faster, and not float32-exact. Weights and sums stay float32."""

    @model_validator(mode="after")
    def _ours(self) -> "SpeedSpec":
        if self.bf16 and not self.fast_loop:
            raise ValueError("training.speed.bf16 is part of our own loop; leave training.speed.fast_loop on")
        return self


class StoppingSpec(Spec):
    """Training that stops: its range's last part is held out, the policy is scored on it now and then, and the best one is kept."""

    enabled: bool = True
    """Whether any part is held out; otherwise the policy of the last step is kept."""
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    """Share held out at the end of the training range, after the folds' own gap."""
    every_rollouts: PositiveInt = 4
    """Rollouts between two looks; there is one more at the end."""
    patience: PositiveInt = 15
    """Looks without a better score after which training ends."""


class TrainingSpec(Spec):
    """The agent and the ensemble around it."""

    algorithm: Literal["PPO", "MaskablePPO", "RecurrentPPO"] = "PPO"
    """`MaskablePPO` is told which actions have an effect; `RecurrentPPO` has an LSTM each for policy and value."""
    actions: ActionKind = "discrete"
    """What a policy decides for each symbol: `discrete` is HOLD, BUY or SELL; `weights` is a share of the gross limit, drawn from a normal
    distribution in training and its mean afterwards. MaskablePPO only has discrete actions."""
    network: Literal["shared", "joint"] = "shared"
    """`shared` reads every symbol with the same weights, alongside the others, pooled: what is learnt about one symbol applies to all, and
    there may be any number of them. `joint` reads all symbols' columns at once, with weights for each."""
    credit: Literal["symbol", "portfolio"] = "symbol"
    """What a decision on a symbol is rewarded with: that symbol's part of the reward, or all of it. A joint network and stable-baselines3's
    own loop only know the portfolio's."""
    total_timesteps: PositiveInt = 2_000_000
    """Environment steps of one member in production."""
    timesteps_reduction: float = Field(default=1.0, gt=0, le=1)
    """Share of `total_timesteps` that is actually trained: 0.1 in `test`, 0.01 in `quick`. Below 1 a model proves nothing."""
    members: PositiveInt = 5
    """Policies per fold, identical except for the seed; they vote."""
    n_envs: PositiveInt = 32
    """Accounts in the batch."""
    n_steps: PositiveInt = 128
    """Steps of each account per rollout."""
    batch_size: PositiveInt = 256
    """Samples per gradient step; divides n_envs * n_steps."""
    n_epochs: PositiveInt = 5
    """Passes over a rollout."""
    learning_rate: PositiveFloat = 3e-4
    """Adam's step."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """`linear` falls to 0 over the steps that are trained."""
    gamma: float = Field(default=0.9, ge=0, le=1)
    """Discount per bar: at 0 a decision is rewarded by the next bar alone. The further it looks ahead, the more noise from other bars is in
    its reward."""
    gae_lambda: float = Field(default=0.5, ge=0, le=1)
    """Bias against variance of the advantage."""
    clip_range: PositiveFloat = 0.2
    """PPO's clip."""
    ent_coef: NonNegativeFloat = 0.01
    """Weight of the entropy bonus."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_grad_norm: PositiveFloat = 0.5
    """Gradient clip."""
    weight_decay: NonNegativeFloat = 10.0
    """Every gradient step shrinks all weights by this times the learning rate (AdamW). Bars are few and noisy: without it a network learns
    them by heart."""
    target_kl: PositiveFloat | None = None
    """Stop a rollout's updates beyond this divergence; no limit by default."""
    net_arch: tuple[PositiveInt, ...] = (32, 32)
    """Hidden layers of policy and of value function; after the LSTM, if there is one. In a shared network they encode one symbol, so they
    may be far smaller than in a joint one, where they encode all; one more layer joins each symbol with the others."""
    lstm_size: PositiveInt = 32
    """Width of each LSTM of RecurrentPPO; a shared network remembers this much about every symbol."""
    log_every_rollouts: PositiveInt = 1
    """Rollouts that one point of the learning curve sums up."""
    teacher: Literal["auto", "none", "logistic", "ridge", "trees", "lasso", "lagged"] = "auto"
    """Supervised model of `regression` that a policy first imitates and is then kept close to. Only in our own loop. `auto` is `lagged` for
    RecurrentPPO, which can remember what earlier bars said, and `lasso` for the others, which cannot."""
    observe_forecast: bool = False
    """Observe the teacher's forecast of the next return as one more feature. On the bars that a policy learns from, the forecast comes from
    a model of the other bars, so that it is no better there than it will be later."""
    teacher_weight: NonNegativeFloat = 0.3
    """Weight in the loss of the divergence from the teacher; with 0 the policy only starts from the teacher."""
    stopping: StoppingSpec = StoppingSpec()
    """When training ends before its steps are done, and which of its policies is kept."""
    speed: SpeedSpec = SpeedSpec()
    """How training is computed."""

    @model_validator(mode="after")
    def _masks_are_of_actions(self) -> "TrainingSpec":
        if self.algorithm == "MaskablePPO" and self.actions == "weights":
            raise ValueError("training.algorithm MaskablePPO masks discrete actions; with training.actions=weights use PPO or RecurrentPPO")
        return self

    @model_validator(mode="after")
    def _networks_have_layers(self) -> "TrainingSpec":
        reads = self.speed.fast_loop and self.algorithm != "RecurrentPPO"  # whose LSTM reads them
        if not self.net_arch and (self.network == "shared" or reads):
            why = "a shared network encodes each symbol" if self.network == "shared" else "the fast loop reads observations with a layer"
            raise ValueError(f"training.net_arch is empty; {why}, so name one, such as [64]")
        return self

    @model_validator(mode="after")
    def _decay_leaves_something(self) -> "TrainingSpec":
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError(
                f"training.weight_decay {self.weight_decay:g} at learning_rate {self.learning_rate:g} shrinks every weight to nothing at "
                f"each step; it must be below {1 / self.learning_rate:g}"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides_rollout(self) -> "TrainingSpec":
        rollout = self.n_envs * self.n_steps
        if rollout % self.batch_size:
            raise ValueError(
                f"training.batch_size {self.batch_size} does not divide n_envs * n_steps = {self.n_envs} * {self.n_steps} = {rollout}"
            )
        if self.algorithm == "RecurrentPPO" and self.speed.fast_loop and self.batch_size % self.n_steps:
            raise ValueError(
                f"training.batch_size {self.batch_size} is not a multiple of n_steps {self.n_steps}; RecurrentPPO needs whole sequences"
            )
        return self

    @property
    def credits_symbols(self) -> bool:
        """Whether each symbol has a reward, a value and an advantage of its own."""
        return self.credit == "symbol" and self.network == "shared" and self.speed.fast_loop

    @model_validator(mode="after")
    def _memory_learns_from_memory(self) -> "TrainingSpec":
        if self.teacher == "lagged" and self.algorithm != "RecurrentPPO":
            raise ValueError(
                f"training.teacher lagged reads earlier bars, which {self.algorithm} cannot remember; use RecurrentPPO or teacher lasso"
            )
        return self

    @model_validator(mode="after")
    def _forecasts_are_a_teachers(self) -> "TrainingSpec":
        if self.observe_forecast and not self.is_taught:
            raise ValueError(
                "training.observe_forecast needs a teacher, whose forecast it adds to the observation; set training.teacher and "
                "training.speed.fast_loop"
            )
        return self

    @property
    def taught_by(self) -> Literal["logistic", "ridge", "trees", "lasso", "lagged"] | None:
        """The kind of a policy's teacher; None where it has none."""
        if self.teacher == "none" or not self.speed.fast_loop:
            return None
        if self.teacher == "auto":
            return "lagged" if self.algorithm == "RecurrentPPO" else "lasso"
        return self.teacher

    @property
    def is_taught(self) -> bool:
        """Whether a policy has a teacher."""
        return self.taught_by is not None

    @property
    def planned_timesteps(self) -> int:
        """Steps that will be trained: the reduced number, in whole rollouts."""
        rollout = self.n_envs * self.n_steps
        return max(round(self.total_timesteps * self.timesteps_reduction / rollout), 1) * rollout


class CheckpointSpec(Spec):
    """Checkpoints of a training run in progress."""

    enabled: bool = True
    """Whether to write checkpoints at all."""
    every_rollouts: PositiveInt = 10
    """Rollouts between two checkpoints."""
    keep: PositiveInt = 2
    """How many of each training run's newest checkpoints to keep."""
    keep_best: bool = False
    """Also keep, beside the checkpoints and after training, the policy that had the best recent episodes at a checkpoint. It is the best on
    its own training bars, which does not measure skill."""
    auto_resume: bool = True
    """Continue from the newest intact checkpoint; false starts over."""


class LogSpec(Spec):
    """Logs of a training run, for people to read; they change no result."""

    tensorboard: Path | None = None
    """Folder for TensorBoard's files, one folder in it per fold and member; empty for none. Needs `ploutos[tensorboard]`."""


@dataclass(frozen=True)
class TrainingPaths:
    """Where a training run keeps its files."""

    folder: Path
    """Checkpoints and progress of this training run, removed when it is done."""
    device: Device = "cpu"
    tensorboard: Path | None = None
    """Where TensorBoard's files go; None for none."""
    gpu_share: float | None = None
    """Most of a GPU's memory that this training may take, as a share; None for no bound."""

    @property
    def progress_file(self) -> Path:
        return self.folder / "progress.json"
