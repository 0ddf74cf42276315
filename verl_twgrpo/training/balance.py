"""Spread groups over data-parallel ranks: whole, in equal numbers of rows, with tokens balanced."""

from __future__ import annotations

from collections.abc import Sequence

from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

from verl_twgrpo.rows import rows_by_group


def partition_groups(
    sizes: Sequence[int], workloads: Sequence[int], ranks: int, rows_per_rank: int
) -> list[list[int]] | None:
    """Which groups each rank gets, none cut, at most rows_per_rank rows on each; None where that cannot be.

    Equal groups in a number that the ranks divide are left to verl's own balancing (Karmarkar-Karp). Otherwise, when
    rollouts failed, the heaviest group first goes to the least loaded rank that has room.

    Args:
        sizes: rows of each group.
        workloads: cost of each group.
        ranks: data-parallel ranks.
        rows_per_rank: what verl's dispatch gives each rank; free rows are for padding.
    """
    if len(set(sizes)) == 1 and len(sizes) % ranks == 0 and sizes[0] * (len(sizes) // ranks) <= rows_per_rank:
        return get_seqlen_balanced_partitions(list(workloads), k_partitions=ranks, equal_size=True)
    parts: list[list[int]] = [[] for _ in range(ranks)]
    room, load = [rows_per_rank] * ranks, [0] * ranks
    # The largest groups are the hardest to place; among equals the heaviest.
    for group in sorted(range(len(sizes)), key=lambda g: (-sizes[g], -workloads[g], g)):
        fitting = [rank for rank in range(ranks) if room[rank] >= sizes[group]]
        if not fitting:
            return None
        rank = min(fitting, key=lambda r: (load[r], r))
        parts[rank].append(group)
        room[rank] -= sizes[group]
        load[rank] += workloads[group]
    return parts


def order_rows(
    group_of_row: Sequence[str | None], workloads: Sequence[int], ranks: int, mini_batch_rows: int | None = None
) -> tuple[list[int], list[list[int]]] | None:
    """The order of rows in which verl's even split keeps groups whole, and each rank's rows; None if there is none.

    Args:
        group_of_row: group id of each row, None for a padding row, which may go anywhere.
        workloads: cost of each row.
        ranks: data-parallel ranks; they divide the number of rows.
        mini_batch_rows: rows of one optimiser step on a rank. verl cuts a rank's rows in their order, so padding at
            the end would leave the last steps a response or none; it is spread over the steps instead.
    """
    groups = list(rows_by_group(group_of_row).values())
    padding = [row for row, group in enumerate(group_of_row) if group is None]
    rows_per_rank = len(group_of_row) // ranks
    parts = partition_groups(
        [len(rows) for rows in groups],
        [sum(int(workloads[row]) for row in rows) for rows in groups],
        ranks,
        rows_per_rank,
    )
    if parts is None:
        return None
    placed = [[row for group in sorted(part) for row in groups[group]] for part in parts]
    for rank, rows in enumerate(placed):
        fill = rows_per_rank - len(rows)
        placed[rank] = _spread(rows, padding[:fill], mini_batch_rows or rows_per_rank)
        del padding[:fill]
    return [row for rows in placed for row in rows], placed


def _spread(rows: Sequence[int], padding: Sequence[int], mini_batch_rows: int) -> list[int]:
    """Rows in their order, cut into mini-batches as even as may be, each filled up with padding."""
    steps = max((len(rows) + len(padding)) // mini_batch_rows, 1)
    few, more = divmod(len(rows), steps)
    ordered, taken, filled = [], 0, 0
    for step in range(steps):
        real = rows[taken : taken + few + (step < more)]
        fill = padding[filled : filled + mini_batch_rows - len(real)]
        ordered += [*real, *fill]
        taken, filled = taken + len(real), filled + len(fill)
    return ordered + list(rows[taken:]) + list(padding[filled:])


def check_groups_whole(group_of_row: Sequence[str | None], ranks: int) -> None:
    """Raises ``ValueError`` naming a group whose rows verl's even split would send to more than one rank."""
    rows_per_rank = len(group_of_row) // ranks
    rank_of: dict[str, int] = {}
    for row, group in enumerate(group_of_row):
        rank = row // rows_per_rank
        if group is not None and rank_of.setdefault(group, rank) != rank:
            raise ValueError(
                f"tw_grpo: group {group} spans data-parallel ranks {rank_of[group]} and {rank}: its mixture needs all "
                "rows on one rank (data.train_batch_size must be a multiple of the number of ranks)"
            )
