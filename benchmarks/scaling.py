"""Images/s to expect of `srn128` on 1 to 64 GPUs: computed, not measured. A table in Markdown; bytes: MB and GB/s.

An update takes what it takes on one GPU, and then the sum of gradients over ranks, none of it hidden: in a ring each of
n GPUs sends 2 (n - 1) / n times the gradients through its slowest link (Patarasuk and Yuan, 2009).
"""

import click

from dnnlib.command import Command, run_command

# Measured on H200s (benchmarks/results): one at batch 96 with two targets a scene; and at batch 32 a second one made an
# update 2.7 ms longer, in which the gradients crossed once.
IMAGES_PER_SECOND, BATCH, GRADIENT_MB = 401.7, 96, 411
IN_A_HOST = GRADIENT_MB / 2.7  # through NVLink, with the copies before and after it
HOSTS = {"400 Gb/s a GPU": 50.0, "100 Gb/s a host": 12.5}  # between hosts: nominal rates of usual networks
GPUS_OF_A_HOST = 8


def images_per_second(gpus: int, network: str, megabytes: float = GRADIENT_MB) -> float:
    """Over all GPUs, with BATCH target images on each."""
    rate = IN_A_HOST if gpus <= GPUS_OF_A_HOST else min(IN_A_HOST, HOSTS[network])
    return gpus * BATCH / (BATCH / IMAGES_PER_SECOND + 2 * (gpus - 1) / gpus * megabytes / rate / 1e3)


@click.command(cls=Command)
def main() -> None:
    """The images/s to expect of srn128 on 1 to 64 GPUs: computed, not measured."""
    columns = [(network, name, GRADIENT_MB / part) for network in HOSTS for name, part in (("", 1), (", bf16", 2))]
    print("| GPUs |", " | ".join(network + name for network, name, _ in columns), "|")
    print("|---" * (1 + len(columns)) + "|")
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        rates = [images_per_second(gpus, network, megabytes) for network, _, megabytes in columns]
        print(f"| {gpus} |", " | ".join(f"{rate:,.0f} ({rate / gpus / IMAGES_PER_SECOND:.1%})" for rate in rates), "|")


if __name__ == "__main__":
    run_command(main)
