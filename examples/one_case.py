"""Your own mask and template in, an annotated synthetic volume out: python one_case.py RUN DATASET OUT."""

import sys
from pathlib import Path

import cardiosynth

run, dataset, out = (Path(word) for word in sys.argv[1:4])

generator = cardiosynth.load_generator(run)
cases = cardiosynth.read_dataset(dataset)
mask = next(iter(cardiosynth.make_masks(cases, 1, seed=0)))  # or any Case with your own mask
template = next(case for case in cases if case.case_id not in mask.provenance["parents"])
synthetic = generator.generate(mask, template, seed=0)
cardiosynth.write_dataset([synthetic], out)
print(f"{synthetic.case_id}: mean confidence {synthetic.confidence.mean():.2f}, in {out}")
