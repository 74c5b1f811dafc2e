"""What a generator does with the first window of a clip, before anything is rendered."""

from __future__ import annotations

from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators.protocol import Denoiser, StepDifference
from pflx.runtime.generators.speaker_window import Ahead
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream.chain import Chain, seeded_noise
from pflx.runtime.stream.inbox import Inbox


def first_window_difference(chain: Chain, clip: SpeakerFile, seed: int) -> StepDifference | None:
    """How far the chosen denoising steps are from the trained sampler there; see `Listener.step_difference`."""
    if not isinstance(chain.generator, Denoiser) or chain.generator.is_trained_sampler:
        return None
    inbox = Inbox(silent=False, sample_rate_hz=clip.sample_rate_hz)
    for chunk in clip.limited(chain.generator.window / FPS).chunks():
        inbox.add(chunk.video, chunk.audio, chain.clock())
    taken = inbox.window(inbox.n_frames)
    window, _ = chain.speaker.step(taken, chain.speaker.start(FaceTrack()), Ahead())
    return chain.generator.step_difference(window, seeded_noise(seed)(0, 0, chain.generator.noise_size)[None])
