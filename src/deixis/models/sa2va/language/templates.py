"""How a conversation is written out for a language model: the strings around turns and images.

Released Sa2VA models have no system turn; each keeps the marks of the language model it is built on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deixis.data.refer.conversation import SEG, region_name

NEW_TOKENS = (SEG, "<p>", "</p>", "<vp>", "</vp>")
"""What Sa2VA adds to a vocabulary: an object, a phrase, a region."""

REGION_START, REGION_END = "<vp>", "</vp>"


@dataclass(frozen=True)
class Template:
    """The strings around turns and images. Special tokens are written as their text.

    Attributes:
        system: before the first turn, usually nothing.
        user: before and after a user's turn; what comes after opens the assistant's turn.
        end: what the assistant writes when it is done; the token generation stops at.
        between: after `end` when another turn follows.
        image_start, image_token, image_end: an image is `image_token` repeated, between the other two.
    """

    name: str
    user: tuple[str, str]
    end: str
    system: str = ""
    between: str = ""
    image_start: str = "<img>"
    image_token: str = "<IMG_CONTEXT>"
    image_end: str = "</img>"

    def image(self, tokens: int) -> str:
        """An image of this many tokens, all its tiles together.

        >>> TEMPLATES["chatml"].image(2)
        '<img><IMG_CONTEXT><IMG_CONTEXT></img>'
        """
        # One pair of marks around all tiles, as InternVL writes them; the placeholders are replaced in `Sa2va.embed`.
        return f"{self.image_start}{self.image_token * tokens}{self.image_end}"

    def regions(self, tokens: Sequence[int]) -> str:
        """Regions, each of its number of tokens, as released models were trained on them; what follows is the question.

        >>> TEMPLATES["phi3"].regions([1, 1])[41:]
        'region1<vp><IMG_CONTEXT></vp>, region2<vp><IMG_CONTEXT></vp>.\\n'
        """
        if not tokens:
            return ""
        each = [
            f"{region_name(number)}{REGION_START}{self.image_token * count}{REGION_END}"
            for number, count in enumerate(tokens, start=1)
        ]
        # Sa2VA's own sentence, word for word: released models were trained on no other.
        return f"There are {len(each)} part regions in the picture: {', '.join(each)}.\n"

    def question(self, text: str, first: bool) -> str:
        """A user's turn, up to where the assistant begins. No loss is wanted on it.

        >>> TEMPLATES["chatml"].question("Hello", first=True)
        '<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n'
        """
        return (self.system if first else self.between) + self.user[0] + text + self.user[1]

    def answer(self, text: str) -> str:
        """The assistant's turn, its end included. All of it is learnt."""
        return text + self.end


_CHATML = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
TEMPLATES = {
    template.name: template
    for template in (
        Template("chatml", _CHATML, "<|im_end|>", between="\n"),
        Template("phi3", ("<|user|>\n", "<|end|>\n<|assistant|>\n"), "<|end|>", between="\n"),
        Template(
            "qwen_vl",
            _CHATML,
            "<|im_end|>",
            between="\n",
            image_start="<|vision_start|>",
            image_token="<|image_pad|>",
            image_end="<|vision_end|>",
        ),
        Template(
            "qwen_vl_system",
            _CHATML,
            "<|im_end|>",
            system="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
            between="\n",
            image_start="<|vision_start|>",
            image_token="<|image_pad|>",
            image_end="<|vision_end|>",
        ),
    )
}
"""chatml: InternLM2 and Qwen 2 in InternVL; phi3: Phi 3; qwen_vl: Qwen's own vision-language
models; qwen_vl_system: those whose chat template begins with a system turn, as Qwen2.5-VL's does."""
