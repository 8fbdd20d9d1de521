"""Compare the GPUs that can serve a model, and draw their memory.

python examples/plan.py internvl2_5-38b memory.png
"""

from __future__ import annotations

import sys

from internvl_modal import plan

model = sys.argv[1] if len(sys.argv) > 1 else "internvl2_5-78b"
best = plan(model)
for choice in best.choices:
    low, high = choice.cost.per_1000
    print(
        f"{choice.gpu_string:13} {choice.capacity.max_batch_size:3} requests at once  "
        f"{choice.cost.per_hour:5.2f} USD/h  {low:.2f}-{high:.2f} USD for 1,000 pictures"
    )
if len(sys.argv) > 2:
    best.plot(sys.argv[2])
