"""Six questions and twelve snippets, written by hand, whose correct ranking is obvious."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query, and the index of its relevant snippet in `DOCUMENTS`."""

    text: str
    answer: int


DOCUMENTS = (
    "def sort_numbers(numbers):\n    result = list(numbers)\n    result.sort()\n    return result",
    'def parse_date(text):\n    year, month, day = text.split("-")\n    return date(int(year), int(month), int(day))',
    "def read_lines(path):\n    with open(path) as file:\n        return file.readlines()",
    "def send_message(sock, message):\n    data = message.encode()\n    sock.sendall(data)",
    "def remove_directory(path):\n    for entry in os.scandir(path):\n        os.unlink(entry.path)\n"
    "    os.rmdir(path)",
    "def mean(values):\n    return sum(values) / len(values)",
    "def to_json(value):\n    return json.dumps(value, indent=2, sort_keys=True)",
    "def matrix_product(a, b):\n    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]",
    "def run_in_thread(target, *args):\n    thread = threading.Thread(target=target, args=args)\n    thread.start()\n"
    "    return thread",
    "def count_words(text):\n    counts = {}\n    for word in text.split():\n"
    "        counts[word] = counts.get(word, 0) + 1\n    return counts",
    "def compress(data):\n    return zlib.compress(data, level=9)",
    "def file_checksum(path):\n    digest = hashlib.sha256()\n    digest.update(path.read_bytes())\n"
    "    return digest.hexdigest()",
)

QUESTIONS = (
    Question(text="sort a list of numbers", answer=0),
    Question(text="parse an ISO date", answer=1),
    Question(text="read all lines of a text file", answer=2),
    Question(text="send data over a network socket", answer=3),
    Question(text="count how often each word occurs", answer=9),
    Question(text="start a function in a new thread", answer=8),
)
