"""Slow twins of the method, written from docs/method.md alone: one unpadded instance at a time, plain Python numbers.

Nothing here knows the package. Every function takes nested lists (or a tensor, turned into them) and gives lists.
An instance has N = head + n + tail tokens: `head` protected ones, n content tokens, `tail` protected ones. The pooled
token is the first of all, or the last of all where there is a tail (CLIP text: EOT). `content` lists the positions
head .. head + n - 1. Scores are lists of n numbers, one a content token.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, exp, floor, log, sqrt
from typing import Any

EPS = 1e-8


def plain(x: Any) -> Any:
    """A tensor as nested lists of Python numbers, exactly; lists as they are."""
    return x.tolist() if hasattr(x, "tolist") else x


# --- arithmetic ----------------------------------------------------------------------------------------------------


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def norm(a: Sequence[float]) -> float:
    return sqrt(dot(a, a))


def softmax(a: Sequence[float]) -> list[float]:
    powers = [exp(x - max(a)) for x in a]
    return [p / sum(powers) for p in powers]


def column_of(matrix: Sequence[Sequence[float]], k: int) -> list[float]:
    return [row[k] for row in matrix]


# --- attention -----------------------------------------------------------------------------------------------------


def attention(query: Any, key: Any, value: Any, causal: bool = False) -> tuple[list, list]:
    """`softmax(q k^T / sqrt(d)) v` of `[tokens, heads, width]`: probabilities `P[h][i][j]` and outputs `o[i][h][d]`.

    `causal`: row i sees the tokens up to i only, and pays the later ones nothing.
    """
    query, key, value = plain(query), plain(key), plain(value)
    heads, width = len(key[0]), len(key[0][0])
    probability = []
    for h in range(heads):
        rows = []
        for i, q in enumerate(query):
            seen = key[: i + 1] if causal else key
            row = softmax([dot(q[h], k[h]) / sqrt(width) for k in seen])
            rows.append(row + [0.0] * (len(key) - len(seen)))
        probability.append(rows)
    output = [
        [[dot(probability[h][i], [v[h][d] for v in value]) for d in range(width)] for h in range(heads)]
        for i in range(len(query))
    ]
    return probability, output


def class_row(probability: Any, tail: int) -> list:
    """`P[h][pooled][j]` as `[j][h]`, for all tokens j."""
    probability = plain(probability)
    pooled = -1 if tail else 0
    return [[head[pooled][j] for head in probability] for j in range(len(probability[0][0]))]


def column(probability: Any, content: Sequence[int]) -> list[float]:
    """`sum_i max_h P[h,i,j]` over content rows i, for all tokens j."""
    probability = plain(probability)
    return [sum(max(head[i][j] for head in probability) for i in content) for j in range(len(probability[0][0]))]


# --- MAG -----------------------------------------------------------------------------------------------------------


def affinity(query: Any, semantic: Any) -> list:
    """`A = q S^T`."""
    return [[dot(q, s) for s in plain(semantic)] for q in plain(query)]


def semantic_feature(affinity: Any, query: Any, count: int, width: int) -> list:
    """`F = softmax_over_tokens(A / sqrt(D))^T q`, `[count][width]`; nothing is gathered where there is no token."""
    affinity, query = plain(affinity), plain(query)
    feature = []
    for k in range(count):
        weight = softmax([a / sqrt(width) for a in column_of(affinity, k)]) if affinity else []
        feature.append([sum(w * q[d] for w, q in zip(weight, query, strict=True)) for d in range(width)])
    return feature


def alignment_loss(image: Any, text: Any) -> float:
    """`mean_k (1 - cos(F_image[k], F_text[k]))`."""
    pairs = list(zip(plain(image), plain(text), strict=True))
    return sum(1 - dot(i, t) / (norm(i) * norm(t)) for i, t in pairs) / len(pairs)


def contrastive_alignment_loss(image: Any, text: Any, picture: Any, warmth: float) -> list[float]:
    """Half of the cross-entropies of a text among images and of its image among texts; others of its image are out."""
    image, text, count = plain(image), plain(text), len(picture)

    def like(i: int, j: int) -> float:
        pairs = list(zip(text[i], image[j], strict=True))
        return sum(dot(t, v) / (norm(t) * norm(v)) for t, v in pairs) / len(pairs) / warmth

    losses = []
    for i in range(count):
        others = [j for j in range(count) if j == i or picture[j] != picture[i]]
        right = others.index(i)
        among_images = softmax([like(i, j) for j in others])[right]
        among_texts = softmax([like(j, i) for j in others])[right]
        losses.append(-(log(among_images) + log(among_texts)) / 2)
    return losses


# --- DTP: scores ---------------------------------------------------------------------------------------------------


def class_score(row: Any, output_norm: Any) -> list[float]:
    """`S_cls[j] = sum_h P[h,0,j] w[h,j]`, `w[h,j] = |o[h,j]| / (sum_h' |o[h',j]| + 1e-8)`; `row` and norms `[j][h]`."""
    scores = []
    for p, o in zip(plain(row), plain(output_norm), strict=True):
        scores.append(sum(p[h] * o[h] / (sum(o) + EPS) for h in range(len(p))))
    return scores


def share(score: Sequence[float]) -> list[float]:
    """A score divided by its sum (+1e-8)."""
    return [s / (sum(score) + EPS) for s in score]


def self_score(column: Any) -> list[float]:
    """`S_self`, from the column sums at the content tokens."""
    return share(plain(column))


def token_score(affinity: Any) -> list[float]:
    """`S_tok`, from the content tokens' affinities."""
    return share([max(a) for a in plain(affinity)])


def median(a: Sequence[float]) -> float:
    """Of an even number the lower one."""
    return sorted(a)[(len(a) - 1) // 2] if a else 0.0


def robust_token_score(affinity: Any) -> list[float]:
    """docs/method.md, `madtp_robust`."""
    best = [max(row) for row in plain(affinity)]
    far = [abs(b - median(best)) for b in best]
    spread = 1.4826 * median(far) or sum(far) / max(1, len(far)) or 1.0
    return share([1 / (1 + exp((median(best) - b) / spread)) for b in best])


def token_importance(s_cls: Sequence[float], s_self: Sequence[float], s_tok: Sequence[float]) -> list[float]:
    """`TIS = (S_cls + S_self + S_tok) / 3`."""
    return [(a + b + c) / 3 for a, b, c in zip(s_cls, s_self, s_tok, strict=True)]


# --- DTP: decision -------------------------------------------------------------------------------------------------


def threshold(affinity: Any, importance: Any, temperature: float) -> float:
    """`theta = min_k sum_j softmax_j(A[j,k] / tau) TIS[j]`."""
    affinity, importance = plain(affinity), plain(importance)
    return min(
        dot(softmax([a / temperature for a in column_of(affinity, k)]), importance) for k in range(len(affinity[0]))
    )


def keep_above(importance: Any, theta: float, fewest: int = 1) -> list[bool]:
    """Tokens with `TIS > theta`; all of them if fewer than `fewest` would stay or at most one would go."""
    keep = [t > theta for t in plain(importance)]
    m = sum(keep)
    return [True] * len(keep) if m < fewest or len(keep) - m <= 1 else keep


def keep_top(score: Any, prune_share: str, fewest: int = 1) -> list[bool]:
    """The `ceil((1 - prune_share) n)` best, earlier ones first among equals; `prune_share` as a decimal, exactly."""
    score = plain(score)
    n = len(score)
    m = max(ceil((1 - Fraction(prune_share)) * n), fewest)
    if n - m <= 1:
        return [True] * n
    best = sorted(range(n), key=lambda j: (-score[j], j))[:m]
    return [j in best for j in range(n)]


# --- comparators -----------------------------------------------------------------------------------------------------


def due(share: str, entered: int, now: int, block: int, fewest: int = 1) -> int:
    """Tokens that a block takes: `floor(share entered (block + 1))` in all so far, half of what is there at most."""
    each = Fraction(share) * entered
    return max(0, min(floor(each * (block + 1)) - floor(each * block), now // 2, now - fewest))


def bipartite(key: Any, count: int) -> list[int]:
    """ToMe: where each content token goes, itself = it stays. `key` of the content tokens."""
    key, into = plain(key), list(range(len(plain(key))))
    proposals = []
    for a in range(0, len(key), 2):
        likes = [(dot(key[a], key[b]) / (norm(key[a]) * norm(key[b])), -b) for b in range(1, len(key), 2)]
        if likes:
            best, b = max(likes)
            proposals.append((-best, a, -b))
    for _, a, b in sorted(proposals)[:count]:
        into[a] = b
    return into


def matched(key: Any, size: Sequence[float], farthest: float, fewest: int, rounds: int) -> tuple[list[int], int]:
    """ToMe by a threshold: where each content token goes in the end, itself = it stays, and the pairs compared."""
    key, into, pairs = plain(key), list(range(len(plain(key)))), 0
    for _ in range(rounds):
        left = sorted(set(into))
        held = [[j for j in range(len(into)) if into[j] == i] for i in left]
        total = [sum(size[j] for j in some) for some in held]
        means = [
            [sum(size[j] * key[j][c] for j in some) / whole for c in range(len(key[0]))]
            for some, whole in zip(held, total, strict=True)
        ]
        pairs += (len(left) + 1) // 2 * (len(left) // 2)
        goes = bipartite(means, max(0, min(len(left) // 2, len(left) - fewest)))
        for a, b in enumerate(goes):
            if 1 - dot(means[a], means[b]) / (norm(means[a]) * norm(means[b])) >= farthest:
                goes[a] = a
        if goes == list(range(len(left))):
            break
        into = [left[goes[left.index(j)]] for j in into]
    return into, pairs


def deviations(a: Sequence[float]) -> list[float]:
    """Less their mean, over their root mean square (+1e-8 under the root)."""
    mean = sum(a) / len(a)
    spread = sqrt(sum((x - mean) ** 2 for x in a) / len(a) + EPS)
    return [(x - mean) / spread for x in a]


def complete_graph(key: Any, importance: Sequence[float], count: int) -> list[int]:
    """CrossGET: where each content token goes, itself = it stays. `importance` of mean 0 and spread 1."""
    key = plain(key)
    n = len(key)
    if n < 2:
        return list(range(n))
    like = [[dot(a, b) / (norm(a) * norm(b)) for b in key] for a in key]
    nearest = [max(like[i][j] for j in range(n) if j != i) for i in range(n)]
    mean = sum(nearest) / n
    spread = sqrt(sum((x - mean) ** 2 for x in nearest) / n)
    order = sorted(range(n), key=lambda i: (importance[i] * spread - nearest[i], i))
    found = []
    for place, i in enumerate(order[:-1]):  # the last has nobody behind it
        found.append((importance[i] * spread - max(like[i][j] for j in order[place + 1 :]), i))
    goes = {i for _, i in sorted(found)[:count]}
    stay = [j for j in range(n) if j not in goes]
    return [max(stay, key=lambda j: (like[i][j], -j)) if i in goes else i for i in range(n)]


def gather(x: Any, into: Sequence[int], weight: Sequence[float], head: int) -> list:
    """Each content token that stays, in order: with those that go into it as their weighted mean, else as it is."""
    x, out = plain(x), []
    for j in range(len(into)):
        if into[j] == j:
            some = [i for i in range(len(into)) if into[i] == j]
            total = sum(weight[i] for i in some)
            row = [sum(weight[i] * x[head + i][c] for i in some) / total for c in range(len(x[0]))]
            out.append(row if len(some) > 1 else x[head + j])
    return x[:head] + out + x[head + len(into) :]


# --- DTP: applying -------------------------------------------------------------------------------------------------


def merge(x: Any, keep: Sequence[bool], weight: Sequence[float], head: int) -> list:
    """Protected and kept rows in order, `sum_j w[j] x[j] / (sum_j w[j] + 1e-8)` behind the last content token."""
    x = plain(x)
    n = len(keep)
    kept = [x[head + j] for j in range(n) if keep[j]]
    gone = [j for j in range(n) if not keep[j]]
    total = sum(weight[j] for j in gone) + EPS
    merged = [[sum(weight[j] / total * x[head + j][c] for j in gone) for c in range(len(x[0]))]] if gone else []
    return x[:head] + kept + merged + x[head + n :]


def whereabouts(keep: Sequence[bool], weight: Sequence[float], head: int) -> list[tuple[int, float]]:
    """For every content token: its position after the step and the weight it carries there."""
    gone = [j for j in range(len(keep)) if not keep[j]]
    total = sum(weight[j] for j in gone) + EPS
    places = []
    for j in range(len(keep)):
        if keep[j]:
            places.append((head + sum(keep[:j]), 1.0))
        else:
            places.append((head + sum(keep), weight[j] / total))
    return places


def step(
    x: Any, probability: Any, output: Any, affinity: Any, temperature: float, head: int, tail: int, fewest: int = 1
) -> tuple[list, list[bool], list[float], float]:
    """One whole pruning step of one instance: tokens out, which are kept, TIS, and theta.

    Args:
        x: `[N][c]` tokens after the self-attention residual.
        probability: `[h][N][N]`.
        output: `[N][h][d]` attention output per head.
        affinity: `[N][k]` of the block's input tokens, those of protected tokens unread.
        temperature: tau.
        head, tail: protected tokens.
        fewest: an instance that would keep fewer is left whole.
    """
    content = range(head, len(plain(x)) - tail)
    if not content:
        return plain(x), [], [], 0.0
    norms = [[norm(o) for o in token] for token in plain(output)]
    row, columns, a = class_row(probability, tail), column(probability, content), plain(affinity)
    importance = token_importance(
        class_score([row[j] for j in content], [norms[j] for j in content]),
        self_score([columns[j] for j in content]),
        token_score([a[j] for j in content]),
    )
    theta = threshold([a[j] for j in content], importance, temperature)
    keep = keep_above(importance, theta, fewest)
    return merge(x, keep, importance, head), keep, importance, theta


# --- packed layouts ------------------------------------------------------------------------------------------------


def starts(lengths: Sequence[int]) -> list[int]:
    """Where each instance begins when they are packed one after another."""
    return [sum(lengths[:i]) for i in range(len(lengths))]


def split(packed: Any, lengths: Sequence[int]) -> list[list]:
    """The rows of each instance."""
    packed = plain(packed)
    return [packed[start : start + n] for start, n in zip(starts(lengths), lengths, strict=True)]


def standing(importance: Any, group: Sequence[int]) -> list[float]:
    """docs/method.md, `upop`: mean 0 and spread 1 within a group; 0 where all are alike."""
    values = plain(importance)
    out = []
    for value, own in zip(values, group, strict=True):
        same = [v for v, g in zip(values, group, strict=True) if g == own]
        middle = sum(same) / len(same)
        spread = sqrt(sum((v - middle) ** 2 for v in same) / len(same))
        out.append((value - middle) / spread if len(set(same)) > 1 else 0.0)
    return out


def openings(score: Any, cost: Any, share: float, fade: float, least: float) -> list[float]:
    """docs/method.md, `upop`: the masks where a share of the cost is to be gone."""
    score, cost = plain(score), plain(cost)
    out, left, reached, total = [0.0] * len(score), share * sum(cost), 0.0, sum(cost)
    for i in sorted(range(len(score)), key=lambda i: (score[i], i)):
        reached += cost[i]
        if cost[i] <= left + 1e-9:
            left -= cost[i]
        else:
            out[i] = min(1.0, max(least, (reached - share * total) / (fade * total)))
    return out
