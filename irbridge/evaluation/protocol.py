"""How a restored image is compared with its reference."""

from dataclasses import dataclass

from irbridge.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """How images are compared; PSNR and SSIM under different protocols are different quantities.

    Args:
        space: "rgb" (all three channels) or "y" (luma of BT.601, limited range 16 to 235, not
            rounded).
        crop: border pixels dropped on every side.
        quantise: round both images to 8 bits first, as saving them would. Both are clipped to
            [0, 1] anyway.
        reference: "clean", or "vae": besides, the clean image as the backbone's VAE gives it back
            (IRBridge).
    """

    space: str = "rgb"
    crop: int = 0
    quantise: bool = True
    reference: str = "clean"

    def __post_init__(self):
        if self.space not in ("rgb", "y"):
            raise UserError(f"protocol.space={self.space!r} is not known; use rgb or y.")
        if type(self.crop) is not int or self.crop < 0:
            raise UserError(
                f"protocol.crop={self.crop!r} must be a whole number of pixels, 0 or more."
            )
        if type(self.quantise) is not bool:
            raise UserError(f"protocol.quantise={self.quantise!r} must be true or false.")
        if self.reference not in ("clean", "vae"):
            raise UserError(
                f"protocol.reference={self.reference!r} is not known; use clean or vae."
            )

    def describe(self, vae: str = "") -> str:
        """Such as "rgb, 8 bit, crop 0, reference clean"; records and captions carry it.

        Args:
            vae: what names the VAE.
        """
        also = f" and VAE round trip {vae}".rstrip() if self.reference == "vae" else ""
        bits = "8 bit" if self.quantise else "float"
        return f"{self.space}, {bits}, crop {self.crop}, reference clean{also}"
