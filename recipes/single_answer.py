"""Keep the questions of a converted file that have exactly one true option, and ask for one letter.

The training data of the rows "single-choice" of Tables 2 and 3 (released code: --question_type single):

    python recipes/single_answer.py data/clevrer/clevrer-train.parquet data/clevrer/clevrer-train-single.parquet
"""

from __future__ import annotations

import argparse

from verl_twgrpo.data.parquet import FrameLimits, from_row, read_rows, to_row, write_rows

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("file", help="parquet file that `verl-twgrpo data convert` wrote")
parser.add_argument("out", help="parquet file to write")
parser.add_argument("--force", action="store_true", help="overwrite it")
args = parser.parse_args()

items = [(from_row(row), FrameLimits.of(row["videos"][0])) for row in read_rows(args.file)]
single = [(item, limits) for item, limits in items if len(item.answers) == 1]
rows = [to_row(item, index, limits, "released_single") for index, (item, limits) in enumerate(single)]
write_rows(rows, args.out, force=args.force)
print(f"{args.out}: {len(rows)} of {len(items)} questions")
