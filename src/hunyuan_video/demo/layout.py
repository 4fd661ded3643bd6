"""The page: prompt and button first, the video beside them, everything else folded, the gallery below. What it does is `desk`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import gradio as gr

from hunyuan_video.buckets import BASE
from hunyuan_video.config import Solver, Stability
from hunyuan_video.demo import gallery, stage
from hunyuan_video.demo.form import NAMES, Form
from hunyuan_video.demo.offer import Offer, length_name, size_name, with_own

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
THEME = gr.themes.Default(
    primary_hue="blue", neutral_hue="slate", radius_size="lg", font=FONTS, font_mono=("ui-monospace", "monospace")
)  # the system's fonts: nothing is fetched from elsewhere
MAX_STEPS, MAX_GUIDANCE, MAX_SHIFT = 100, 20.0, 10.0  # as the official page has them
MAX_SHIFT_OF_PICTURES = 20.0  # the official one of dynamic videos is 17
EXAMPLE = "A cat walks on the grass, realistic style."


class Page:
    """The components: `fields` by the names of `Form`'s, and the others. To be made inside `gr.Blocks`."""

    def __init__(self, offer: Offer, form: Form, loras: list[str]):
        self.offer = offer
        self.fields: dict[str, Any] = {}
        self.shown, self.pages, self.made, self.last = gr.State(None), gr.State(1), gr.State(0), gr.State(("", ""))
        self.timer = gr.Timer(1)
        self.head = gr.HTML(elem_id="head")
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="first"):
                self._first(form)
            with gr.Column(elem_id="screen"):
                self.stage = gr.HTML(stage.EMPTY, elem_id="stage", js_on_load=None)
            with gr.Column(elem_id="more"):
                self._rewriting(form)
                self._picture(form)
                self._other_ways(form)
                self._loras(form, loras)
                self._advanced(form)
        gr.HTML("<h2>Your videos</h2>", elem_id="videos", js_on_load=None)
        self.gallery = gr.HTML(elem_id="gallery", js_on_load=gallery.ON_LOAD)

    def form(self, values: tuple[Any, ...]) -> Form:
        """What stands in the fields, in the order of `inputs`."""
        given: dict[str, Any] = dict(zip(NAMES, values, strict=True))
        given["loras"] = tuple(given["loras"] or ())
        return Form(**given)

    @property
    def inputs(self) -> list[Any]:
        return [self.fields[name] for name in NAMES]

    def filled(self, form: Form, image: Any) -> list[Any]:
        """New values for `inputs`; what is not offered becomes a choice."""
        values: dict[str, Any] = {name: getattr(form, name) for name in NAMES}
        values["size"] = gr.Dropdown(choices=self._sizes(form), value=form.size)
        values["num_frames"] = gr.Dropdown(choices=self._lengths(form), value=form.num_frames)
        return list((values | {"image": image, "loras": list(form.loras)}).values())

    def _first(self, form: Form) -> None:
        self.fields["prompt"] = gr.Textbox(
            form.prompt, label="Prompt", placeholder=EXAMPLE, lines=4, max_lines=12, elem_id="prompt", autofocus=True
        )
        with gr.Row(elem_classes="tight"):
            self.fields["size"] = gr.Dropdown(self._sizes(form), value=form.size, label="Size", min_width=120, elem_id="size")
            lengths = self._lengths(form)
            self.fields["num_frames"] = gr.Dropdown(lengths, value=form.num_frames, label="Length", min_width=120, elem_id="length")
        self.fields["num_steps"] = gr.Slider(1, MAX_STEPS, form.num_steps, step=1, label="Steps", elem_id="steps")
        self.takes = gr.HTML("<p>Looking at what it will take …</p>", elem_id="takes", js_on_load=None)
        with gr.Row(elem_classes="tight"):
            self.generate = gr.Button("Generate", variant="primary", size="lg", min_width=120, scale=3, elem_id="generate")
            self.cancel = gr.Button("Cancel", size="lg", min_width=100, scale=1, visible=False, elem_id="cancel")

    def _rewriting(self, form: Form) -> None:
        with gr.Accordion("Rewrite the prompt", open=form.rewrite_mode != "off"):
            with gr.Row(elem_classes="tight"):
                self.fields["rewrite_mode"] = gr.Radio(
                    ["off", "normal", "master"],
                    value=form.rewrite_mode,
                    label="Rewriting",
                    info="normal: what you mean, in the model's words; master: also composition, light and camera",
                    min_width=200,
                )
                self.rewrite = gr.Button("Rewrite now", min_width=100, elem_id="rewrite")
            self.fields["rewritten"] = gr.Textbox(
                form.rewritten,
                label="Rewritten prompt",
                info="Change it as you like; this is what the video is made of.",
                lines=3,
                elem_id="rewritten",
            )
            self.fields["rewriter"] = gr.State(form.rewriter)

    def _picture(self, form: Form) -> None:
        can = self.offer.image_to_video
        title = "First picture" if can else "First picture: these weights know text alone"
        with gr.Accordion(title, open=self.offer.needs_picture):
            self.fields["image"] = gr.Image(
                type="filepath",  # the file as it came, which `orders.place` reads with care
                image_mode=None,
                sources=["upload", "clipboard"],
                label="The video begins with it, scaled and cropped to the video's size",
                height=240,
                interactive=can,
                elem_id="picture",
            )
            with gr.Row(elem_classes="tight"):
                sizes = [("the one above", ""), *((f"{name}, by its shape", name) for name in BASE)]
                self.fields["resolution"] = gr.Dropdown(sizes, value=form.resolution, label="Size of the video", min_width=140, visible=can)
                self.fields["stability"] = gr.Radio(
                    list(get_args(Stability)),
                    value=form.stability,
                    label="Stability",
                    info="dynamic moves more, and brings a larger flow shift",
                    min_width=160,
                    visible=can,
                )

    def _other_ways(self, form: Form) -> None:
        with gr.Accordion("Last picture, clip, loop", open=False):
            self.fields["last"] = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                label="The video ends with it",
                height=200,
                elem_id="last",
            )
            self.fields["clip"] = gr.File(
                file_types=["video"], type="filepath", label="A clip that is made anew, by the prompt", height=120, elem_id="clip"
            )
            self.fields["strength"] = gr.Slider(
                0.05, 1, form.strength, step=0.05, label="Strength", info="How much of the clip is made anew", elem_id="strength"
            )
            self.fields["loop"] = gr.Checkbox(form.loop, label="The end leads back to the beginning", elem_id="loop")

    def _loras(self, form: Form, names: list[str]) -> None:
        with gr.Accordion("LoRA", open=False):
            self.fields["loras"] = gr.Dropdown(
                names, multiselect=True, label="LoRA", info=None if names else "There is none: --loras FOLDER names a folder of them."
            )
            self.fields["strengths"] = gr.Textbox(
                form.strengths,
                label="Strength",
                info="One for all, or one for each, between spaces; 0.8,single_blocks=0 acts in a part.",
                max_lines=1,
            )

    def _advanced(self, form: Form) -> None:
        embedded = self.offer.embedded_guidance
        with gr.Accordion("Advanced", open=False):
            self.fields["seed"] = gr.Textbox(
                form.seed, label="Seed", info="-1: a random one, which the video knows", max_lines=1, elem_id="seed"
            )
            self.fields["guidance"] = gr.Slider(
                0, MAX_GUIDANCE, form.guidance, step=0.1, label="Embedded guidance scale", interactive=embedded, visible=embedded
            )
            most = MAX_SHIFT_OF_PICTURES if self.offer.image_to_video else MAX_SHIFT
            self.fields["shift"] = gr.Slider(0.1, most, form.shift, step=0.1, label="Flow shift")
            self.fields["cfg_scale"] = gr.Slider(
                1, MAX_GUIDANCE, form.cfg_scale, step=0.1, label="Guidance scale", info="Above 1 in two passes, which take twice the time"
            )
            self.fields["negative_prompt"] = gr.Textbox(
                form.negative_prompt,
                label="Negative prompt",
                info="Acts while the guidance scale is above 1; empty: that of the weights",
                lines=2,
            )
            with gr.Row(elem_classes="tight"):
                self.fields["schedule"] = gr.Dropdown(["shift", "linear-quadratic"], value=form.schedule, label="Schedule", min_width=120)
                self.fields["linear_steps"] = gr.Textbox(
                    form.linear_steps, label="Linear steps", placeholder="half", max_lines=1, min_width=100
                )
                self.fields["solver"] = gr.Dropdown(list(get_args(Solver)), value=form.solver, label="Solver", min_width=100)
                self.fields["noise"] = gr.Dropdown(["cpu", "official"], value=form.noise, label="Noise", min_width=100)

    def _sizes(self, form: Form) -> list[str]:
        return list(with_own(tuple(map(size_name, self.offer.sizes)), form.size))

    def _lengths(self, form: Form) -> list[tuple[str, Any]]:
        return [(length_name(frames), frames) for frames in sorted(with_own(self.offer.lengths, form.num_frames))]
