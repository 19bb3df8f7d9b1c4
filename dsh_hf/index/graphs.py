"""How graphs of codes are built and searched, be they hnswlib's or FAISS's.

Codes lie in clusters, and a search that keeps fewer candidates than some clusters hold codes ends in the wrong
one; so it keeps more of them the more codes there are, and its time grows as theirs does. Up to a million codes
of 64 bits, the engines that compare every code are faster.
"""

M = 16  # links a code
EF_CONSTRUCTION = 100  # candidates kept while a code is linked
EF, EF_SHARE = 400, 256


def candidates(k: int, codes: int) -> int:
    """Give how many candidates a search for the ``k`` nearest of so many codes keeps."""
    return max(EF, 4 * k, codes // EF_SHARE)
