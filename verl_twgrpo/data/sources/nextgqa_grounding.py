"""NExT-GQA with its times: which option holds, and when one sees it. Task grounded_qa.

VideoChat-R1's annotations (nextgqa_val.json): {id, video, question, options ["(A) ..", ..], answer "(C)", type,
duration, glue [[start, end], ..]}, times in seconds. Official: two files, questions by row in {val,test}.csv and times
in gsub_{val,test}.json, {video: {duration, location {qid: [[start, end], ..]}, ..}}; a row of the former with
the fields ``duration`` and ``location`` of its question added is taken as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources import nextgqa
from verl_twgrpo.data.sources.fields import Skipped
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    times = row.get("glue", row.get("location"))
    for item in nextgqa.convert(row, split):
        if not isinstance(item, Item):
            yield item
        elif not times:
            yield Skipped("no times", item.id)
        else:
            truth = {"letters": item.ground_truth, "intervals": times, "duration": row.get("duration")}
            yield replace(
                item,
                source="nextgqa_grounding",
                task="grounded_qa",
                answers=frozenset(),
                truth=json.dumps(truth),
                provenance={},
            )


SOURCE = Source("nextgqa_grounding", convert, split="validation", prompt="grounded_qa", unique_video_names=True)
