"""The part of the harmony chat format this model speaks: prompts, completions, and turning them into tokens."""

SPECIAL_TOKENS = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>",
                  "<|end|>", "<|message|>", "<|call|>"]
BOS, PAD, RETURN, CALL = "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|call|>"

# Text that is no multiple-choice problem gets one fixed reply, so that the model closes its channels there too.
OPEN_WORKING = "no puzzle"
OPEN_REPLY = "I only know small puzzles."
OPEN_REQUESTS = [
    "hi", "Hello!", "Hello, how are you?", "What is your name?", "Who are you?", "Tell me a story.",
    "Write a poem about the sea.", "What is the capital of France?", "Explain how a train works.",
    "Please write a short letter.", "Why is the sky blue?", "Thank you!", "What can you do?", "Help me, please.",
    "Translate this text into German.", "Sum up the book in one line.", "Is it going to rain today?",
    "Give me three names for a cat.", "How old is the world?", "Good morning.", "Can you sing?", "Tell me more.",
    "Where is the nearest station?", "Is this model good at mathematics?", "Please answer my question.",
]


def system_text(effort, date=None):
    """The default system message; the date line is absent by default, as in the format's own default."""
    date_line = f"\nCurrent date: {date}" if date else ""
    return ("You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06" + date_line
            + f"\n\nReasoning: {effort}\n\n# Valid channels: analysis, commentary, final. "
            "Channel must be included for every message.")


def final_text(letter):
    return f"Answer: {letter}"


class Renderer:
    """Renders to token ids. Text pieces are encoded on their own and never become special tokens."""

    def __init__(self, tokenizer):
        self.special = {text: tokenizer.token_to_id(text) for text in SPECIAL_TOKENS}
        self.encoder = type(tokenizer).from_str(tokenizer.to_str())
        self.encoder.encode_special_tokens = True       # "<|end|>" typed by a user is plain text
        self.stop_ids = [self.special[text] for text in (RETURN, PAD, CALL)]

    def text(self, text):
        return self.encoder.encode(text, add_special_tokens=False).ids

    def message(self, header, content):
        """A complete message; header pieces that are special tokens go in by id."""
        pieces = [self.special[p] if p in self.special else self.text(p) for p in header]
        ids = [i for piece in pieces for i in (piece if isinstance(piece, list) else [piece])]
        return [self.special["<|start|>"], *ids, self.special["<|message|>"], *self.text(content)]

    def system(self, effort, date=None):
        return self.message(["system"], system_text(effort, date)) + [self.special["<|end|>"]]

    def user(self, content):
        """The user message and the opening of the reply: what follows the system message in a prompt."""
        return (self.message(["user"], content) + [self.special["<|end|>"], self.special["<|start|>"]]
                + self.text("assistant"))

    def prompt(self, effort, content):
        return self.system(effort) + self.user(content)

    def completion(self, working, final):
        """What the model emits after `<|start|>assistant`."""
        ids = []
        if working:
            ids = self.message(["assistant", "<|channel|>", "analysis"], working)[2:] + [self.special["<|end|>"]]
        message = self.message(["assistant", "<|channel|>", "final"], final) + [self.special["<|return|>"]]
        return ids + (message if ids else message[2:])
