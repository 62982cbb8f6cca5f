"""What Python programs do: dictionaries, strings, big integers, objects, sorting, regular expressions."""

import re
import sys


class Page:
    def __init__(self, number):
        self.number = number
        self.hits = 0

    def touch(self, weight):
        self.hits += weight
        return self.hits


def words(count):
    value = 12345
    for _ in range(count):
        value = (value * 1103515245 + 12345) % 2**31
        yield f"w{value % 997:x}"


def main():
    total = 0
    for _ in range(int(sys.argv[1])):
        pages = {}
        for word in words(6000):
            page = pages.get(word)
            if page is None:
                page = pages[word] = Page(len(pages))
            total += page.touch(len(word))
        ranking = sorted(pages.items(), key=lambda item: (-item[1].hits, item[0]))
        text = " ".join(name for name, _ in ranking)
        total += sum(int(match[1], 16) for match in re.finditer(r"w([0-9a-f]+)\b", text))
        total ^= pow(total | 1, 65537, 2**127 - 1) & 0xFFFF
        total += sum(x * x % 7 for x in range(8000) if x & 3)
    print(total)


main()
