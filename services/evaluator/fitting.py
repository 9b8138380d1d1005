"""Items that are longer than a checkpoint's context. Pure."""

from collections.abc import Sequence

from services.evaluator.errors import ItemsError
from services.evaluator.items import ItemSet

MAXIMUM_LEFT_OUT_SHARE = 0.1


def leave_out_long(item_set: ItemSet, lengths: Sequence[int], context: int | None) -> tuple[ItemSet, str | None]:
    """The items of at most `context` tokens, and a note on those left out (none where all fit).

    Args:
        item_set: A suite's items.
        lengths: Tokens of each item's longest candidate.
        context: Most tokens that the model reads; none where it has no bound.

    Raises:
        ItemsError: more than a tenth would be left out, or all of a paradigm: the average would be another measure.
    """
    if context is None or max(lengths) <= context:
        return item_set, None
    kept = tuple(item for item, length in zip(item_set.items, lengths, strict=True) if length <= context)
    missing = len(lengths) - len(kept)
    note = (
        f"{missing} of {len(lengths)} items are longer than the checkpoint's context of {context} tokens "
        f"(the longest has {max(lengths)})"
    )
    lost = sorted({item.uid for item in item_set.items} - {item.uid for item in kept})
    if missing > MAXIMUM_LEFT_OUT_SHARE * len(lengths) or lost:
        whole = f", all of {', '.join(lost[:3])} among them" if lost else ""
        raise ItemsError(f"{note}{whole}; this suite needs a student with a context of {max(lengths)} tokens or more")
    return ItemSet(kept, item_set.source), f"{note} and were left out: not comparable with results on all items"
