//! Sizes in bytes as people write them: `64M`.

/// Reads a size: a whole number of bytes, or of binary kilo-, mega- or gigabytes with `K`, `M`, `G`.
///
/// # Errors
/// When the text is no such number, or the size does not fit 64 bits.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "\"{text}\" is not a size; write a number of bytes or one with K, M or G, like \"64M\""
        )
    };
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Writes a size in the largest unit that holds it exactly.
pub fn show(bytes: u64) -> String {
    for (shift, unit) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip_and_nonsense_is_refused() {
        for (text, bytes) in [("0", 0), ("1", 1), ("64M", 64 << 20), ("3G", 3 << 30), ("5K", 5120)]
        {
            assert_eq!(parse(text), Ok(bytes));
            assert_eq!(show(bytes), text);
        }
        assert_eq!(show(1536 << 20), "1536M");
        for text in ["", "M", "64MB", "-1", "+1", "1.5G", "64m", "99999999999G", " 1", "0x10"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("like \"64M\""), "{error}");
        }
    }
}
