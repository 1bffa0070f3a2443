"""What all of our models share: the pruning settings, the guidance, and wrapping a stock model without copying it."""

from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from madtp.errors import InputError
from madtp.model.block import Guidance, Pruner, TokenMap
from madtp.model.config import PruneConfig
from madtp.model.linear import hasten, pack_weights, unpack_weights
from madtp.model.narrow import fit, follow, narrow
from madtp.model.recompute import recompute
from madtp.prune import METHODS, Trace, alignment_loss, contrastive_alignment_loss


def blip_guidance(config: Any) -> Guidance:
    """Fresh guidance for a BLIP model's towers."""
    width = config.text_config.hidden_size
    return Guidance(PruneConfig.of(config.madtp).semantic_tokens, width, config.vision_config.hidden_size)


class Pruned:
    """Mixin of a transformers model class (named after ours in the bases) that prunes tokens.

    Class attributes to set: `config_class`, `stock_class` (the class that `from_dense` accepts).
    """

    stock_class: type[PreTrainedModel]
    # Read by the stock Trainer: our losses are means of a batch, and take no count of its items.
    accepts_loss_kwargs = False
    config: Any
    madtp_guidance: Guidance

    def post_init(self) -> None:
        """As the host, once every part is there; then linear maps take their fast form."""
        super().post_init()  # type: ignore[misc]
        hasten(self)  # type: ignore[arg-type]
        if hasattr(self, "madtp_guidance"):  # the host calls this too, before our parts are there
            if self.pruning.widths is None:
                follow(self, self.pruning)
            else:
                fit(self, self.pruning.widths)

    def pack_weights(self) -> Self:
        """Lay out the weights for inference on the CPU: faster, above all where few tokens are left.

        They are held twice until the model moves, changes its type or goes into training mode; parameters must not be
        changed by other means meanwhile. Nothing happens on a GPU.
        """
        pack_weights(self)  # type: ignore[arg-type]
        return self

    def train(self, mode: bool = True) -> Self:
        """As the host; training lets go of packed weights, and of the curve: it is not that of other weights."""
        if mode:
            unpack_weights(self)  # type: ignore[arg-type]
            self._forget_curve()
        return super().train(mode)  # type: ignore[misc]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        unpack_weights(self)  # type: ignore[arg-type]
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def checkpoint_blocks(self, on: bool = True) -> Self:
        """Gradient checkpointing: training keeps the blocks' inputs alone and runs the blocks again in backward.

        The same losses and gradients, for less memory and more time. As the host's `activation_checkpointing_enable`
        (in earlier versions `gradient_checkpointing_enable`), but a copy may be frozen.
        """
        self._set_gradient_checkpointing(on, partial(checkpoint, use_reentrant=False))
        return self

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        super()._set_gradient_checkpointing(*args, **kwargs)  # type: ignore[misc]
        recompute(self)  # type: ignore[arg-type]

    @property
    def pruning(self) -> PruneConfig:
        """How the model prunes; set it, or `temperature`, at any time."""
        return PruneConfig.of(self.config.madtp)

    @pruning.setter
    def pruning(self, value: PruneConfig) -> None:
        before, towers = self.pruning, (self.config.vision_config, self.config.text_config)
        if value.first_block >= (blocks := max(tower.num_hidden_layers for tower in towers)):
            said = f"no block has the number {value.first_block}"
            raise InputError(said, "madtp.first_block", f"from 0, the towers have {blocks}")
        other = (value.method, value.first_block) != (before.method, before.first_block)
        if other and value.curve is not None and value.curve == before.curve:
            value = replace(value, curve=None)  # what a temperature saves has changed
        self.config.madtp = value.to_dict()
        if value.widths is None:
            follow(self, value)

    def _forget_curve(self) -> None:
        if self.pruning.curve is not None:
            self.pruning = replace(self.pruning, curve=None)

    @property
    def temperature(self) -> float | None:
        """The knob of the compute budget; None = dense."""
        return self.pruning.temperature

    @temperature.setter
    def temperature(self, value: float | None) -> None:
        self.pruning = PruneConfig(**{**self.pruning.to_dict(), "temperature": value, "reduction": None})

    def set_reduction(self, reduction: float) -> None:
        """Set the temperature that saves a share of the GFLOPs, by the measured curve that is stored with the model.

        At a measured point `pruning.reduction` is what was measured there. Between two the temperature is read off the
        curve (linear in its logarithm): what it saves was not measured, and `pruning.reduction` is None.

        Args:
            reduction: share of the dense model's GFLOPs to save; 0 = dense, which needs no curve.

        Raises:
            InputError: (a ValueError) it is no share; there is no curve; it is outside of what was measured.
        """
        if reduction == 0:
            self.temperature = None
            return
        if not 0 < reduction < 1:
            raise InputError(f"{reduction:g} is impossible", "reduction", "use a number from 0 (dense) to below 1")
        settings = self.pruning
        if settings.curve is None:
            fix = "measure one: `madtp calibrate --model DIR --data DATA --reduction 0.3,0.5,0.8 --out OUT`"
            raise InputError("no curve is stored with this model (training drops it)", "reduction", fix)
        temperature, measured = settings.curve.read(reduction)
        self.pruning = replace(settings, temperature=temperature, reduction=measured)

    @property
    def aligns(self) -> bool:
        """True if training takes the alignment loss: the model prunes, and the loss has a weight."""
        return self.temperature is not None and self.pruning.alpha > 0

    def _pruner(self, tower: str, trace: Trace, *, gather: bool, provenance: bool, **others: Any) -> Pruner:
        """The pruning of one tower in one forward; `others` are further fields of `Pruner`."""
        if torch.compiler.is_exporting():
            said = "torch.export cannot follow it, dense or pruned: how many tokens each instance has is data"
            raise InputError(said, type(self).__name__, "use madtp.export_images for the dense image tower")
        settings = self.pruning
        config = self.config.vision_config if tower == "vision" else self.config.text_config
        return Pruner(
            tower=tower,
            trace=trace,
            method=METHODS[settings.method],
            strength=settings.temperature,
            semantic=self.madtp_guidance.semantic_tokens,
            query_map=partial(self.madtp_guidance.query_map, tower),
            gather=gather,
            provenance=provenance,
            training=self.training,  # type: ignore[attr-defined]
            straight_through=settings.straight_through,
            first_block=settings.first_block,
            depth=config.num_hidden_layers,
            **others,
        )

    def _alignment(self, image: Tensor, text: Tensor, picture: Tensor) -> Tensor:
        """`[q]` alignment losses of texts and what they look at.

        Args:
            image: `[q, k, d]` semantic features of what each text looks at.
            text: `[q, k, d]` of the texts.
            picture: `[q]` what that is, by number.
        """
        if self.pruning.alignment == "cosine":
            return alignment_loss(image, text)
        return contrastive_alignment_loss(image, text, picture.to(image.device))

    def _losses(self, task: Tensor | None, alignment: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """`task + alpha * align`, MAG's training loss, and `align`, the mean of `alignment [q]`; None = none."""
        if alignment is None:
            return task, None
        align = alignment.mean()
        return (None if task is None else task + self.pruning.alpha * align), align

    def narrow(self) -> Self:
        """Take out for good what a method that prunes weights (`Method.weights`) has closed at the temperature set.

        The outputs stay, the model is smaller from then on, and has no dense form any more. No change under any other
        method, or where it is dense.
        """
        if self.temperature is not None and (widths := narrow(self)) is not None:
            self.pruning = replace(self.pruning, widths=widths)
        return self

    def renew_semantic_tokens(self, count: int) -> None:
        """Replace the semantic tokens by `count` fresh ones, from torch's random state."""
        old = self.madtp_guidance.semantic_tokens
        fresh = torch.randn(count, old.shape[1], dtype=old.dtype, device=old.device) * old.shape[1] ** -0.5
        self.madtp_guidance.semantic_tokens = nn.Parameter(fresh)
        self.pruning = replace(self.pruning, semantic_tokens=count, curve=None)

    def _init_weights(self, module: nn.Module) -> None:
        """As the host; semantic tokens of unit expected norm, so that affinities are as large as tokens' entries."""
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, Guidance):
            init.normal_(module.semantic_tokens, mean=0.0, std=module.semantic_tokens.shape[-1] ** -0.5)
        elif isinstance(module, TokenMap):  # the host would give CLIP's a standard deviation of 1
            init.normal_(module.weight, mean=0.0, std=module.in_features**-0.5)
            init.zeros_(module.bias)

    @classmethod
    def _config_of(cls, model: PreTrainedModel, **madtp: Any) -> Any:
        """Our configuration for the sizes of `model`."""
        settings = {
            k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "architectures", "madtp")
        }
        return cls.config_class(**settings, madtp=PruneConfig(**madtp).to_dict())  # type: ignore[attr-defined]

    @classmethod
    def from_dense(cls, model: PreTrainedModel, **madtp: Any) -> Self:
        """Wrap a loaded stock model. Its parameters are shared, not copied; the model itself is left as it is.

        Args:
            model: an instance of `stock_class`.
            **madtp: fields of `PruneConfig`.

        Raises:
            TypeError: `model` is of another class.
        """
        if not isinstance(model, cls.stock_class):
            raise TypeError(f"{cls.__name__}.from_dense takes a {cls.stock_class.__name__}, got {type(model).__name__}")
        config = cls._config_of(model, **madtp)
        with torch.device("meta"):
            ours = cls(config)  # type: ignore[call-arg]
        theirs = dict(model.named_modules())
        reference = next(model.parameters())
        for name, module in ours.named_modules():  # type: ignore[attr-defined]
            if name in theirs:
                module._parameters.update(theirs[name]._parameters)
                module._buffers.update(theirs[name]._buffers)
            elif isinstance(module, Guidance):
                module.to_empty(device=reference.device).to(reference.dtype)
                with torch.no_grad():
                    for part in module.modules():
                        ours._init_weights(part)
        ours.pruning = ours.pruning  # masks, if there are any, by these weights
        left = [name for name, parameter in ours.named_parameters() if parameter.is_meta]  # type: ignore[attr-defined]
        assert not left, f"parameters without a counterpart in the stock model: {left}"
        for name, module in model.named_children():
            if getattr(module, "generation_config", None) is not None:
                getattr(ours, name).generation_config = module.generation_config
        ours.train(model.training)
        return ours
