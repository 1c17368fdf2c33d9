"""Generated multiple-choice problems for the nano model: questions, workings, keys, train/held-out split.

Every category is a function that draws one problem from a random generator. A problem carries its working
at three lengths: `high` (every step spelled out, each one easy on its own), `medium` (a partial working; the
model has to do the rest in its head) and `low` (no steps: the result is guessed). All of them close in the same way:
the result, then the choices read off one after the other until one is that result.

A problem is identified by its canonical key (category and defining numbers, independent of wording, names and
the order of the choices). One key in sixteen, chosen by a hash, is held out: training never sees it.
"""
import random
from dataclasses import dataclass

EFFORTS = ("low", "medium", "high")
LETTERS = "ABCD"
INSTRUCTION = "Express your final answer as the corresponding option 'A', 'B', 'C', or 'D'."
HELD_OUT_ONE_IN = 16
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NAMES = ["Ana", "Ben", "Eva", "Leo", "Mia", "Tom"]
ITEMS = ["apples", "books", "cards", "coins", "pens", "stamps"]
ORDINALS = {2: "second", 3: "third", 4: "fourth"}


@dataclass
class Problem:
    category: str
    key: str
    question: str
    choices: list      # four strings, in the order they are shown
    answer: int        # index into choices
    working: dict      # effort -> text

    @property
    def letter(self):
        return LETTERS[self.answer]


@dataclass
class Draft:
    """What a category function returns; `finish` orders the choices and closes the working."""
    key: str
    question: str
    right: str
    wrong: list
    medium: str
    high: str


# ------------------------------------------------------------------------------------------ helpers
def fnv1a64(text):
    """64-bit FNV-1a of the UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def is_held_out(key):
    return fnv1a64(key) % HELD_OUT_ONE_IN == 0


def near_misses(rng, right, small, large):
    """Three wrong numbers that together with `right` form {x, x+s, x+l, x+s+l}.

    `right` is any of the four corners with equal chance, so the choices alone give nothing away (with
    independent slips around the right answer, "the value most like the others" would be a good guess).
    `small` slips change the last digit, `large` ones are a missed carry (10, 100) or swapped digits (9, 90).
    """
    while True:
        slip_small = rng.choice(small) * rng.choice((1, -1))
        slip_large = rng.choice(large) * rng.choice((1, -1))
        values = [right + slip_small, right + slip_large, right + slip_small + slip_large]
        if min(values) >= 0 and len({right, *values}) == 4:
            return values


def strings(values):
    return [str(value) for value in values]


def column_sum(a, b):
    """Digit-by-digit addition, lowest digit first; a carry shows as the tens digit of a line."""
    lines, carry = [], 0
    top, bottom = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(top), len(bottom))):
        digits = [text[i] for text in (top, bottom) if i < len(text)]
        terms = digits + (["1"] if carry else [])
        total = sum(map(int, terms))
        lines.append("+".join(terms) + f"={total}" if len(terms) > 1 else f"{total}")
        carry = total // 10
    return lines + [str(a + b)]


def column_product(a, digit):
    """a times one digit, lowest digit of a first, carries added on the next line."""
    lines, carry = [], 0
    for d in map(int, reversed(str(a))):
        total = d * digit + carry
        lines.append(f"{d}*{digit}" + (f"+{carry}" if carry else "") + f"={total}")
        carry = total // 10
    return lines + [str(a * digit)]


def long_division(n, d):
    """Remainder of n by d: take the first two digits, subtract the multiple of d, bring down the next digit."""
    lines, digits = [], str(n)
    part = int(digits[:2])
    for nxt in list(digits[2:]) + [None]:
        multiple = part - part % d
        lines.append(f"{part}-{multiple}={part - multiple}")
        part = part - multiple
        if nxt is not None:
            part = part * 10 + int(nxt)
    return lines


# --------------------------------------------------------------------------------------- categories
def addition(rng):
    a, b = rng.randint(100, 999), rng.randint(100, 999)
    lines = column_sum(a, b)
    pairs = list(zip(str(a), str(b)))
    medium = ", ".join(str(int(x) + int(y)) for x, y in pairs)      # column sums, carries left to the reader
    return Draft(f"{min(a, b)}+{max(a, b)}", f"What is {a} + {b}?", str(a + b),
                 strings(near_misses(rng, a + b, (1, 2, 3), (10, 20, 100, 90))), medium, "\n".join(lines))


def subtraction(rng):
    a, b = rng.randint(200, 999), rng.randint(100, 899)
    if a <= b + 20:
        return subtraction(rng)
    lines, borrow = [], 0
    for x, y in zip(map(int, reversed(str(a))), map(int, reversed(str(b)))):
        top = x + 10 if x - y - borrow < 0 else x
        left = f"{top}-{y}" + ("-1" if borrow else "")
        lines.append(f"{left}={top - y - borrow}" + (" borrow" if top > 9 else ""))
        borrow = int(top > 9)
    medium = ", ".join(str((int(x) - int(y)) % 10) for x, y in zip(str(a), str(b)))  # borrows left out
    return Draft(f"{a}-{b}", f"What is {a} - {b}?", str(a - b),
                 strings(near_misses(rng, a - b, (1, 2, 3), (10, 20, 100, 90))), medium,
                 "\n".join(lines + [str(a - b)]))


def multiplication(rng):
    if rng.random() < 0.5:
        a, b = rng.randint(100, 999), rng.randint(3, 9)
        lines, medium = column_product(a, b), f"{a % 100}*{b}={a % 100 * b}"
    else:
        a, b = rng.randint(12, 99), rng.randint(12, 99)
        low, high = a * (b % 10), a * (b // 10)
        lines = column_product(a, b % 10) + column_product(a, b // 10) + column_sum(low, 10 * high)
        medium = f"{low}+{10 * high}"                               # partial products without the digits
    return Draft(f"{min(a, b)}*{max(a, b)}", f"What is {a} * {b}?", str(a * b),
                 strings(near_misses(rng, a * b, (1, 2, 3), (10, 20, 100, 90))), medium, "\n".join(lines))


def remainder(rng):
    n, d = rng.randint(100, 999), rng.randint(4, 12)
    steps = long_division(n, d)
    wrong = rng.sample([r for r in range(d) if r != n % d], 3)
    return Draft(f"{n}%{d}", f"What is the remainder when {n} is divided by {d}?", str(n % d), strings(wrong),
                 steps[0], "\n".join(steps))


def comparison(rng):
    """The choices are expressions; the right one has the largest (or smallest) value."""
    centre, direction = rng.randint(30, 120), rng.choice(("largest", "smallest"))
    values = rng.sample(range(centre - 12, centre + 13), 4)
    expressions = [expression_of(rng, value) for value in values]
    best = max(values) if direction == "largest" else min(values)
    right = expressions[values.index(best)]
    order = ",".join(sorted(normalised(e) for e in expressions))
    return Draft(f"{direction}:{order}", f"Which expression has the {direction} value?", right,
                 [e for e in expressions if e != right], "", "")    # the workings need the final order


def expression_of(rng, value):
    """A sum or difference of two-digit numbers with the given value."""
    if rng.random() < 0.5 and value >= 21:
        a = rng.randint(10, min(value - 10, 99))
        if value - a <= 99:
            return f"{a}+{value - a}"
    b = rng.randint(10, 49)
    return f"{value + b}-{b}"


def normalised(expression):
    return "+".join(sorted(expression.split("+"), key=int)) if "+" in expression else expression


def evaluate(expression):
    if "+" in expression:
        a, b = expression.split("+")
        return int(a) + int(b)
    a, b = expression.split("-")
    return int(a) - int(b)


def comparison_working(question, choices):
    """Values of the choices in the order shown, and the best so far."""
    better = max if "largest" in question else min
    values, lines, best = [evaluate(c) for c in choices], [], 0
    for i, value in enumerate(values):
        best = i if better(value, values[best]) == value else best
        lines.append(f"{choices[i]}={value}" + (f" best {LETTERS[best]}" if i else ""))
    return ", ".join(map(str, values)), "\n".join(lines)


def sorting(rng):
    values = rng.sample(range(10, 100), 6)
    rank, direction = rng.choice((2, 3, 4)), rng.choice(("smallest", "largest"))
    ordered = sorted(values, reverse=direction == "largest")
    right = ordered[rank - 1]
    wrong = rng.sample([v for v in ordered[:rank + 2] if v != right], 3)
    return Draft(f"{rank}:{direction}:" + ",".join(map(str, sorted(values))),
                 f"What is the {ORDINALS[rank]} {direction} of {', '.join(map(str, values))}?", str(right),
                 strings(wrong), str(ordered[0]), "\n".join(f"{i + 1}: {v}" for i, v in enumerate(ordered[:rank])))


def word_problem(rng):
    """Two or three steps; each step is one line of two-digit arithmetic."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    a, k, m = rng.randint(10, 60), rng.randint(2, 6), rng.randint(3, 15)
    g = rng.randint(2, min(30, a))
    kind = rng.randrange(4)
    if kind == 0:
        text = f"{name} has {a} {item}, buys {k} boxes of {m} {item} and gives away {g}. How many {item} are left?"
        steps, right = [f"{k}*{m}={k * m}", f"{a}+{k * m}={a + k * m}"], a + k * m - g
        steps, key = steps + [f"{a + k * m}-{g}={right}"], f"{a}+{k}*{m}-{g}"
    elif kind == 1:
        right, cost = rng.randint(3, 80), k * (m + 2)
        text = f"{name} has {cost + right} dollars and buys {k} tickets for {m + 2} dollars each. How many dollars are left?"
        steps, key = [f"{k}*{m + 2}={cost}", f"{cost + right}-{cost}={right}"], f"{cost + right}-{k}*{m + 2}"
    elif kind == 2:
        n = rng.randint(2, 6)
        h = rng.randint(3, 15)
        text = f"{name} reads {m} pages a day for {k} days and then {h} pages a day for {n} days. How many pages in total?"
        steps, right = [f"{m}*{k}={m * k}", f"{h}*{n}={h * n}"], m * k + h * n
        first, second = sorted((f"{m}*{k}", f"{h}*{n}"))
        steps, key = steps + [f"{m * k}+{h * n}={right}"], f"{first}+{second}"
    else:
        text = f"{name} had {a + g} {item}, gave away {g} and then got {k} times {m} more. How many {item} are there now?"
        steps, right = [f"{a + g}-{g}={a}", f"{k}*{m}={k * m}"], a + k * m
        steps, key = steps + [f"{a}+{k * m}={right}"], f"{a + g}-{g}+{k}*{m}"
    return Draft(key, text, str(right), strings(near_misses(rng, right, (1, 2, 3), (10, 20, 9, 30))),
                 steps[0], "\n".join(steps))


def weekday(rng):
    n, start = rng.randint(10, 399), rng.randrange(7)
    forward = rng.random() < 0.5
    step = 1 if forward else -1
    days = [WEEKDAYS[(start + step * i) % 7] for i in range(n % 7 + 1)]
    question = (f"Today is {days[0]}. Which day of the week will it be in {n} days?" if forward
                else f"Today is {days[0]}. Which day of the week was it {n} days ago?")
    wrong = rng.sample([d for d in WEEKDAYS if d != days[-1]], 3)
    walk = [f"{i} {day}" for i, day in enumerate(days)]
    return Draft(f"{start}{'+' if forward else '-'}{n}", question, days[-1], wrong, f"{n % 7}",
                 "\n".join(long_division(n, 7) + walk))


def clock_text(minutes):
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def clock(rng):
    h, m, dh, dm = rng.randrange(24), rng.randrange(60), rng.randint(1, 11), rng.randint(5, 59)
    start, length = 60 * h + m, 60 * dh + dm
    hours, minutes = h + dh + (m + dm) // 60, (m + dm) % 60
    lines = [f"{m}+{dm}={m + dm}"]
    if m + dm > 59:
        lines.append(f"{m + dm}-60={minutes}")
    lines.append(f"{h}+{dh}" + ("+1" if m + dm > 59 else "") + f"={hours}")
    if hours > 23:
        lines.append(f"{hours}-24={hours - 24}")
    lines.append(clock_text(start + length))
    small, large = rng.choice((1, 2, 5, 10, 20)), rng.choice((60, 120, 40, 30))
    small, large = small * rng.choice((1, -1)), large * rng.choice((1, -1))
    wrong = [clock_text(start + length + slip) for slip in (small, large, small + large)]
    return Draft(f"{h}:{m}+{dh}:{dm}",
                 f"A train leaves at {clock_text(start)} and the trip takes {dh} hours {dm} minutes. When does it arrive?",
                 clock_text(start + length), wrong, f"{m}+{dm}={m + dm}", "\n".join(lines))


def chain(rng):
    """Definitions in shuffled order; follow them from the number to the variable asked for."""
    names, values, moves = rng.sample("abcdefgh", 5), [rng.randint(10, 60)], []
    statements, lines = [f"{names[0]} = {values[0]}"], [f"{names[0]}={values[0]}"]
    for i in range(1, 4):
        sign = rng.choice("+-") if values[-1] > 20 else "+"
        by = rng.randint(2, 19)
        values.append(values[-1] + by if sign == "+" else values[-1] - by)
        moves.append(f"{sign}{by}")
        statements.append(f"{names[i]} = {names[i - 1]} {sign} {by}")
        lines.append(f"{names[i]}={values[-2]}{sign}{by}={values[-1]}")
    statements.append(f"{names[4]} = {rng.choice(names[:3])} + {rng.randint(2, 19)}")     # a side branch, not asked for
    rng.shuffle(statements)
    right = values[-1]
    return Draft(f"{values[0]}{''.join(moves)}", f"{', '.join(statements)}. What is {names[3]}?", str(right),
                 strings(near_misses(rng, right, (1, 2, 3), (10, 20, 9, 5))), lines[1], "\n".join(lines))


CATEGORIES = {
    "addition": addition, "subtraction": subtraction, "multiplication": multiplication, "remainder": remainder,
    "comparison": comparison, "sorting": sorting, "word": word_problem, "weekday": weekday, "clock": clock,
    "chain": chain,
}


# ------------------------------------------------------------------------------------------ assembly
def closing(right, choices, answer):
    """From the result to its letter. Naming the letter at once was tried first: after 1,300 steps the arithmetic was
    right and the letter still a guess, since finding a number among four takes three layers that all have to work before
    any of them helps. Reading the choices off is plain copying, and each line is compared with the result above it."""
    read = [f"({LETTERS[i]}) {choices[i]}" for i in range(answer + 1)]
    return [right, *read, f"option {LETTERS[answer]}"]


def finish(rng, category, draft):
    """Place the right choice at a uniformly drawn letter and close the workings by naming it."""
    choices = rng.sample(draft.wrong, 3)
    answer = rng.randrange(4)
    choices.insert(answer, draft.right)
    medium, high = draft.medium, draft.high
    if category == "comparison":
        medium, high = comparison_working(draft.question, choices)
    close = closing(draft.right, choices, answer)
    steps = high.split("\n")
    if steps[-1] == draft.right:
        steps.pop()
    working = {"low": "\n".join(close), "medium": "\n".join([medium, *close]), "high": "\n".join([*steps, *close])}
    if category == "comparison":
        working["high"] = f"{high}\noption {LETTERS[answer]}"       # its steps have named the letter
    return Problem(category, f"{category}:{draft.key}", draft.question, choices, answer, working)


def draw(rng, held_out, category=None):
    """One problem from the asked side of the split."""
    while True:
        name = category or rng.choice(list(CATEGORIES))
        draft = CATEGORIES[name](rng)
        if is_held_out(f"{name}:{draft.key}") == held_out:
            return finish(rng, name, draft)


def user_message(question, choices):
    """The GPQA user message of the published evaluation code."""
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices))
    return f"{question}\n\n{options}\n\n{INSTRUCTION}"


def question_set(seed, per_category):
    """Held-out problems without repeated keys; every round of ten holds one of each category."""
    rng, columns = random.Random(seed), []
    for name in CATEGORIES:
        seen = {}
        while len(seen) < per_category:
            problem = draw(rng, True, name)
            seen.setdefault(problem.key, problem)
        columns.append(list(seen.values()))
    problems = []
    for row in zip(*columns):
        problems += rng.sample(row, len(row))
    return problems
