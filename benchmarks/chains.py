"""All convolutions of a network in order, each with weights of its own, which then come from memory."""

from fastconv.bench.chains import filled
from fastconv.bench.compare import ours

from .common import CHAINS, THREADS, BesidePeers, set_threads


class Chains:
    params, param_names = [list(CHAINS), THREADS], ("network", "threads")
    rounds, repeat, warmup_time = 1, (3, 20, 1.0), 0.1

    def setup(self, name, threads):
        set_threads(threads)
        self.chain = ours(filled(CHAINS[name]))
        self.chain()

    def time_chain(self, name, threads):
        self.chain()


class ChainsBesidePeers(BesidePeers):
    layers = list(CHAINS)
