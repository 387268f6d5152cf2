r"""Chapter 1: the augmentation of the recorded runs."""

import itertools

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.training import augmentation

N_IMAGE, N_ROW, N_COLUMN = 2000, 4, 3
SHIFT = 1


def images() -> Tensor:
    """Images whose pixels are all different, and none of them 0."""
    one = torch.arange(1.0, 1 + N_ROW * N_COLUMN).view(N_ROW, N_COLUMN)
    return one + 100 * torch.arange(N_IMAGE)[:, None, None]


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Shift images pixel by pixel; pixels from outside the image are 0."""
    result = torch.zeros_like(image)
    for row, column in itertools.product(range(N_ROW), range(N_COLUMN)):
        i, j = row - down, column - right
        if 0 <= i < N_ROW and 0 <= j < N_COLUMN:
            result[..., row, column] = image[..., i, j]
    return result


def frequencies(found: Tensor, cases: list[Tensor]) -> float:
    """Each image is one of the cases, and each case as frequent as the others."""
    hits = torch.stack([(found == case).flatten(1).all(1) for case in cases])
    share, n = 1 / len(cases), len(found)
    error = (share * (1 - share) / n) ** 0.5
    even = (hits.double().mean(1) - share).abs().max() < 5 * error
    return holds(bool((hits.sum(0) == 1).all()) and bool(even))


@claim(
    "R20c",
    "Random horizontal flips and shifts",
    equations=("eq-random-flip", "eq-random-shift"),
    kinds="E M",
    tolerance=0.0,
    source="Goodfellow et al., Deep Learning, 2016, section 7.4",
    subjects=(augmentation,),
    mutants=(
        Mutant("flipped vertically", "random_horizontal_flip", "images.flip(-1)",
               "images.flip(1)"),
        Mutant("all or none of a batch", "random_horizontal_flip",
               "torch.rand(len(images), 1, 1, generator=generator)",
               "torch.rand(1, 1, 1, generator=generator)"),
        Mutant("a third is mirrored", "random_horizontal_flip",
               "torch.rand(len(images), 1, 1, generator=generator) < 0.5",
               "torch.rand(len(images), 1, 1, generator=generator) < 1 / 3"),
        Mutant("mirrored into the next image", "random_horizontal_flip",
               "images.flip(-1)", "images.flip(-1).roll(1, 0)"),
        Mutant("flips ignore the generator", "random_horizontal_flip",
               "torch.rand(len(images), 1, 1, generator=generator)",
               "torch.rand(len(images), 1, 1)"),
        Mutant("never the largest shift", "random_shift",
               "2 * max_shift + 1", "2 * max_shift"),
        Mutant("only along the diagonal", "random_shift",
               "down, right = corners.to(images.device)",
               "down = right = corners.to(images.device)[0]"),
        Mutant("pixels reappear on the opposite side", "random_shift",
               "pad(images, [max_shift] * 4)",
               "pad(images, [max_shift] * 4, mode='circular')"),
        Mutant("the same shift for the batch", "random_shift",
               "down, right = corners.to(images.device)",
               "down, right = corners[:, :1].expand(-1, n_image)"),
    ),
)  # fmt: skip
def flips_and_shifts() -> float:
    """Flips occur with probability 1/2, and all nine shifts equally often."""
    x, generator = images(), torch.Generator().manual_seed(0)
    mirrored = x[..., list(range(N_COLUMN))[::-1]]
    flipped = augmentation.random_horizontal_flip(x, generator)
    places = itertools.product(range(-SHIFT, SHIFT + 1), repeat=2)
    cases = [moved(x, *place) for place in places]
    shifted = augmentation.random_shift(x, SHIFT, generator)
    again = torch.Generator().manual_seed(0)
    return largest(
        [
            frequencies(flipped, [x, mirrored]),
            frequencies(shifted, cases),
            holds(torch.equal(augmentation.random_horizontal_flip(x, again), flipped)),
            holds(torch.equal(augmentation.random_shift(x, SHIFT, again), shifted)),
            of_a_seed(),
        ]
    )


def of_a_seed() -> float:
    """A seed gives the images of the recorded runs: mirrored below one half."""
    x = images()
    numbers = torch.rand(N_IMAGE, generator=torch.Generator().manual_seed(5))
    found = augmentation.random_horizontal_flip(x, torch.Generator().manual_seed(5))
    mirrored = (found != x).flatten(1).any(1)
    return holds(torch.equal(mirrored, numbers < 0.5))
