"""The models: transformers' own, whose towers prune."""

import logging

# transformers imports torchao wherever it is installed; what that says of GPUs, and torch of it, helps nobody here.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").addFilter(lambda record: "is an Enum subclass" not in record.getMessage())
