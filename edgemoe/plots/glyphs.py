"""A small pixel font for pictures: ASCII, 5 x 7 pixels a character.

A glyph is seven digits of base 32, one for each row from the top; the highest of the five bits is
the leftmost pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 5, 7
_ROWS = (
    " 0000000 !4444004 \"AAA0000 #AAVAVAA $4FKE5U4 %OP248J3 &CIK8LID 'C480000 (2488842 )8422248 "
    "*04LEL40 +044V440 ,0000C48 -000V000 .00000CC /01248G0 0EHJLPHE 14C4444E 2EH1248V 3V2421HE "
    "426AIV22 5VGU11HE 668GUHHE 7V124888 8EHHEHHE 9EHHF12C :0CC0CC0 ;0CC0C48 <248G842 =00V0V00 "
    ">8421248 ?EH12404 @EH1DLLE AEHHHVHH BUHHUHHU CEHGGGHE DSIHHHIS EVGGUGGV FVGGUGGG GEHGNHHF "
    "HHHHVHHH IE44444E J72222IC KHIKOKIH LGGGGGGV MHRLLHHH NHHPLJHH OEHHHHHE PUHHUGGG QEHHHLID "
    "RUHHUKIH SFGGE11U TV444444 UHHHHHHE VHHHHHA4 WHHHLLLA XHHA4AHH YHHHA444 ZV1248GV [E88888E "
    "\\0G84210 ]E22222E ^4AH0000 _000000V `8420000 a00E1FHF bGGMPHHU c00EGGHE d11DJHHF e00EHVGE "
    "f698S888 g0FHHF1E hGGMPHHH i40C444E j20622IC kGGIKOKI lC44444E m00QLLHH n00MPHHH o00EHHHE "
    "p00UHUGG q00DJF11 r00MPGGG s00EGE1U t88S8896 u00HHHJD v00HHHA4 w00HHLLA x00HA4AH y00HHF1E "
    "z00V248V {2448442 |4444444 }8442448 ~008L200 "
)
_UNKNOWN = "VHHHHHV"
# Nine characters each: the character, its rows, a space.
_GLYPHS = {_ROWS[at]: _ROWS[at + 1 : at + 8] for at in range(0, len(_ROWS), 9)}


def glyph(character: str) -> npt.NDArray[np.bool_]:
    """[HEIGHT, WIDTH], true where there is ink; a box for a character that the font lacks."""
    rows = [int(digit, 32) for digit in _GLYPHS.get(character, _UNKNOWN)]
    bits = [[row >> (WIDTH - 1 - x) & 1 for x in range(WIDTH)] for row in rows]
    return np.array(bits, dtype=np.bool_)
