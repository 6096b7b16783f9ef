//! `{region}/{size}/{rotation}/{quality}.{format}` by the grammar of Image API 2, as Cantaloupe judges it: bad syntax
//! 400, unknown format 415, no extension 404, upscaling 403, region out of range 400 (upstream.md "Identifiers").

/// Region in pixels of the whole picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Region {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The four parameters as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters<'a> {
    region: &'a str,
    size: &'a str,
    rotation: &'a str,
    file: &'a str,
}

/// A request that can be painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) region: Region,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

type Judged<T> = Result<T, u16>;

fn numbers<const N: usize>(text: &str) -> Result<[f64; N], u16> {
    let plain = |part: &str| part.chars().all(|sign| sign.is_ascii_digit() || sign == '.');
    let parts = text.split(',').map(|part| part.parse().ok().filter(|_| plain(part)));
    parts.collect::<Option<Vec<f64>>>().and_then(|all| all.try_into().ok()).ok_or(400)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels, never negative")]
fn pixels(of: f64) -> u32 {
    of.round() as u32
}

impl<'a> Parameters<'a> {
    /// Judges the parts that do not depend on the picture.
    pub(crate) fn parse(rest: &'a str) -> Judged<Self> {
        let parts: Vec<_> = rest.split('/').collect();
        let [region, size, rotation, file] = parts[..] else { return Err(404) };
        // UPSTREAM: without an extension no route matches: 404 even for a live id.
        let (quality, format) = file.split_once('.').ok_or(404_u16)?;
        let known = Self { region, size, rotation, file };
        // A picture that is larger than any size: only the syntax counts here.
        known.region((u32::MAX, u32::MAX))?;
        if known.size((u32::MAX, u32::MAX)) == Err(400) {
            return Err(400);
        }
        let turn: f64 = rotation.trim_start_matches('!').parse().map_err(|_| 400_u16)?;
        if !(0.0..=360.0).contains(&turn) || !["default", "color", "gray", "bitonal"].contains(&quality) {
            return Err(400);
        }
        // The stand-in paints JPEG alone; the real one knows tif, gif and png too.
        if format == "jpg" { Ok(known) } else { Err(415) }
    }

    /// Judges the rest against the picture.
    pub(crate) fn plan(&self, whole: (u32, u32)) -> Judged<Plan> {
        let region = self.region(whole)?;
        let (width, height) = self.size((region.width, region.height))?;
        Ok(Plan { region, width, height })
    }

    /// Spelling of the request for `Link: rel="canonical"`.
    pub(crate) fn canonical(&self, plan: &Plan, whole: (u32, u32)) -> String {
        let Region { x, y, width, height } = plan.region;
        let full = (width, height) == whole;
        let region = if full { "full".to_owned() } else { format!("{x},{y},{width},{height}") };
        let same = (plan.width, plan.height) == (width, height);
        let size = if same { "full".to_owned() } else { format!("{},", plan.width) };
        format!("{region}/{size}/{}/{}", self.rotation, self.file)
    }

    fn region(&self, (width, height): (u32, u32)) -> Judged<Region> {
        let whole = Region { x: 0, y: 0, width, height };
        let (text, percent) = match self.region {
            "full" => return Ok(whole),
            "square" => {
                let side = width.min(height);
                return Ok(Region {
                    x: (width - side) / 2,
                    y: (height - side) / 2,
                    width: side,
                    height: side,
                });
            }
            text => text.strip_prefix("pct:").map_or((text, false), |rest| (rest, true)),
        };
        let scale = |value: f64, side: u32| if percent { value / 100.0 * f64::from(side) } else { value };
        let [x, y, w, h] = numbers(text)?;
        let (x, y) = (pixels(scale(x, width)), pixels(scale(y, height)));
        let (w, h) = (pixels(scale(w, width)), pixels(scale(h, height)));
        if w == 0 || h == 0 || x >= width || y >= height {
            return Err(400);
        }
        Ok(Region { x, y, width: w.min(width - x), height: h.min(height - y) })
    }

    fn size(&self, whole: (u32, u32)) -> Judged<(u32, u32)> {
        let (width, height) = match (self.size, self.size.strip_prefix("pct:")) {
            ("full" | "max", _) => whole,
            (_, Some(percent)) => {
                let [percent] = numbers(percent)?;
                scaled(whole, percent / 100.0)
            }
            _ => self.sides(whole)?,
        };
        match (width.max(1), height.max(1)) {
            (width, height) if width > whole.0 || height > whole.1 => Err(403),
            sides => Ok(sides),
        }
    }

    /// `w,` `,h` `w,h` `!w,h`
    fn sides(&self, whole: (u32, u32)) -> Judged<(u32, u32)> {
        let (text, confined) = self.size.strip_prefix('!').map_or((self.size, false), |rest| (rest, true));
        let (w, h) = text.split_once(',').ok_or(400_u16)?;
        let side = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().ok().filter(|side| *side > 0).map(Some).ok_or(400_u16),
        };
        let factor = |side: u32, of: u32| f64::from(side) / f64::from(of);
        match (side(w)?, side(h)?) {
            (Some(w), None) if !confined => Ok((w, scaled(whole, factor(w, whole.0)).1)),
            (None, Some(h)) if !confined => Ok((scaled(whole, factor(h, whole.1)).0, h)),
            (Some(w), Some(h)) if confined => {
                Ok(scaled(whole, factor(w, whole.0).min(factor(h, whole.1)).min(1.0)))
            }
            (Some(w), Some(h)) => Ok((w, h)),
            _ => Err(400),
        }
    }
}

fn scaled((width, height): (u32, u32), factor: f64) -> (u32, u32) {
    (pixels(f64::from(width) * factor), pixels(f64::from(height) * factor))
}
