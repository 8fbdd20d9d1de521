"""Caption a folder into captions.jsonl; run it again to go on.

python examples/batch.py photos captions.jsonl
"""

from __future__ import annotations

import sys
from collections import Counter

import internvl_modal as ivl

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, out = sys.argv[1:]
words: Counter[str] = Counter()
failed = 0
for outcome in ivl.describe_many(folder, out=out, detail="low", max_tokens=200):
    if outcome.text is None:
        failed += 1
        reason = str(outcome.error).removeprefix(f"{outcome.key}: ")
        print(f"{outcome.key}: {reason}", file=sys.stderr)
    else:
        words.update(outcome.text.lower().split())
print(f"{failed} failed; the commonest words: {[word for word, _ in words.most_common(5)]}")
