# %% [markdown]
# # Fine-tuning for classification, step by step
#
# The textbook's chapter with the harness's own parts, on the embedded mini model, so it runs anywhere in about a
# minute: as a script, `python docs/chapter.py`, or as the notebook [chapter.ipynb](chapter.ipynb).
# `harness/experiment/run.py` does the same for every strategy, on any number of processes.

# %%
from pathlib import Path

import numpy as np
import torch

from harness import compare
from harness.baselines import Part, Task, zero_shot
from harness.config.schema import DataConfig, EngineConfig, ModelConfig, OptimizerConfig, TrainingConfig
from harness.config.strategy import Strategy
from harness.data.encoding import RowRule, encode_split
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.model.named.continuation import MINI_PROOF, continue_greedily
from harness.model.packing import PackedBatch
from harness.model.split import parameter_counts, split
from harness.planning.resolve import resolve_model
from harness.planning.workspace import Workspace
from harness.results.quality import Metrics
from harness.training.batches import TrainingBatches
from harness.training.engines.factory import open_engine
from harness.training.evaluation import measure, predict

RESULTS, CACHE = Path("results") / "chapter", Path("results") / "chapter" / "cache"
SIZE = 500  # texts

# %% [markdown]
# ## 1. A pretrained language model
#
# It is trained to predict the next token, nothing else. This one has 0.9M parameters and knows one kind of message;
# with MODEL=gpt2 the harness does the same on 124M.

# %%
workspace = Workspace(CACHE)
model, tokenizer = workspace.model("mini"), workspace.tokenizer("mini")
resolved = resolve_model(ModelConfig(name="mini", weights="pretrained"), workspace)
backbone, weights = model.empty(), model.weights(resolved.config, resolved.weights_path)
weights.fill(backbone, backbone.stages())
beginning = tokenizer.encode_ordinary(MINI_PROOF.prompt)
print(f"The model goes on: {MINI_PROOF.prompt!r} -> {tokenizer.decode(continue_greedily(backbone, beginning, 4))!r}\n")

# %% [markdown]
# ## 2. The data set, and its split
#
# 70% of the texts to train on, 10% to make choices on, 20% to report on. Whether a message is spam depends on its word
# order: it is spam if somebody is asked to give before getting.

# %%
dataset = workspace.dataset(DataConfig(name="synthetic", size=SIZE))
classes = dataset.source.classes
for name, part in dataset.split.items():
    print(f"{name:>10}: {len(part):,} texts, {(part['label'] == 'spam').mean():.0%} spam")
text, label = dataset.split["test"].iloc[0][["text", "label"]]
print(f"For instance ({label}): {text}\n")

# %% [markdown]
# ## 3. Texts become rows of token ids
#

# %%
examples = encode_split(dataset.split, tokenizer, classes, RowRule(backbone.context))
print(f"{text[:24]!r}... is {examples['test'].token_ids[:8].tolist()}..., {examples['test'].lengths[0]} tokens\n")

# %% [markdown]
# ## 4. Zero-shot classification does not work
#
# A language model can be asked: which class's name is the likeliest answer to a question about the text? One that is
# pretrained on plain text does not follow instructions, and its answers are no better than a guess.

# %%
some = Part(dataset.split["validation"]["text"].tolist(), examples["validation"])
task = Task(some, classes, "fp32", model, weights, tokenizer, torch.device("cpu"))
asked = measure(np.log(zero_shot.fit(task).probabilities(some)), some.examples.labels, classes)
print(f"Zero-shot accuracy on the validation texts: {asked.accuracy:.2%}\n")

# %% [markdown]
# ## 5. A new head, and what is frozen
#
# The output layer over the vocabulary is replaced by one with a row for each class. Only the last block, the final
# LayerNorm and this head are trained. `split` cuts there; everything below the cut (the prefix) is frozen.

# %%
SEED = 0
torch.manual_seed(SEED)  # draws the head's weights
strategy = Strategy(trainable=("block.-1", "final_norm"), readout="last")
prefix, suffix = split(backbone, strategy, len(classes))
parameters, trained = parameter_counts(prefix, suffix)
print(f"Trained: {trained:,} of {parameters:,} parameters, from {prefix.facts.boundary} upwards; the rest is frozen\n")

# %% [markdown]
# ## 6. Which token to read
#
# Under the causal mask a token sees itself and the tokens before it. Two texts with the same beginning have the same
# logits at their first token, whatever follows: only the last token has seen the full text.

# %%
first_words: dict[str, str] = {}
for other in dataset.split["test"]["text"]:
    twin = first_words.setdefault(other.split()[0], other)
    if twin != other:
        break
with torch.no_grad():
    for one in (twin, other):
        ids = torch.tensor(tokenizer.encode_ordinary(one))
        hidden = backbone(ids, PackedBatch.padded(ids.new_tensor([len(ids)]).numpy(), len(ids)))
        logits = suffix.head(hidden)
        first, last = ([f"{value:+.4f}" for value in logits[position].tolist()] for position in (0, -1))
        print(f"{one[:40]!r}...: at the first token {', '.join(first)}; at the last {', '.join(last)}")
print()

# %% [markdown]
# ## 7. Loss and accuracy before training
#
# An untrained head guesses. The loss is the cross-entropy at the token that is read, in nats: ln 2 = 0.69 for a coin
# toss.

# %%
world = World(rank=0, size=1, device=torch.device("cpu"))
prefix.place(world.device, "fp32")
engine = open_engine(EngineConfig(), "fp32", world, fused=True)
engine.prepare(suffix, OptimizerConfig(learning_rate=1e-3))
features = {name: Features.computed(prefix, part, world.device) for name, part in examples.items()}


def measured(part: str) -> Metrics:
    return measure(predict(engine, features[part], world), examples[part].labels, classes)


def report(when: str) -> None:
    for part in examples:
        metrics = measured(part)
        print(f"{when} {part:>10}: loss {metrics.loss:.3f}, accuracy {metrics.accuracy:.2%}")
    print()


report("before")

# %% [markdown]
# ## 8. Training
#
# Five epochs, batches of eight, in an order that depends on the seed alone. A step computes the loss of a batch and the
# gradients of the trained parameters, and updates these with AdamW.

# %%
training = TrainingConfig(epochs=5, batch_size=8)
batches = TrainingBatches(features["train"], examples["train"], training, SEED, world)
for epoch in range(training.epochs):
    for indices in batches.of_epoch(epoch):
        engine.step(batches.local(indices), len(indices))
    metrics = measured("validation")
    print(f"epoch {epoch + 1}: validation loss {metrics.loss:.3f}, accuracy {metrics.accuracy:.2%}")

# %% [markdown]
# ## 9. Loss and accuracy after
#
# At most 97% is possible here on average: 3% of the labels are flipped.

# %%
report("after")
engine.close()

# %% [markdown]
# ## 10. The other choices, side by side
#
# What the head alone is worth, what the first token is worth, and what a rule achieves without a model. `last_block` is
# the model trained above. How to read the table: docs/measuring.md and docs/statistics.md; what else a comparison
# gives: docs/python.md.

# %%
strategies = ["head_only", "last_block", "first_token", "length_rule", "tfidf"]
comparison = compare(
    "synthetic", strategies, model="mini", seeds=SEED, settings={"data.size": SIZE}, results=RESULTS, cache=CACHE
)
comparison

# %% [markdown]
# The best of them by the validation texts, as a classifier to use and to keep.

# %%
best = comparison.best
new = [
    "hi. please pay the cash. no rush at all. then get the prize. we can talk about it this weekend. talk soon",
    "hi. please get the prize. no rush at all. then pay the cash. we can talk about it this weekend. talk soon",
]
for text, label, probabilities in zip(new, best.predict(new), best.predict_proba(new), strict=True):
    print(f"{label} ({probabilities.max():.0%}): {text}")
best.save(RESULTS / "my_classifier")

# %%
comparison.plot("accuracy")
