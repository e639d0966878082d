//! Tokens: `eyego_<id of the key>_<43 base62 characters>`.
//!
//! The prefix lets scanners for leaked secrets recognize a token, and the id
//! selects the entry to compare with.

use sha2::{Digest as _, Sha256};

use crate::domain::access::Key;

const PREFIX: &str = "eyego_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of the secret part: 43 base62 characters are 256 bits.
const SECRET_LENGTH: usize = 43;

/// Generates a token for the key with this id from the operating system's random
/// numbers.
///
/// # Errors
/// Returns an error if the operating system provides no random numbers.
pub fn generate_token(id: &str) -> Result<String, getrandom::Error> {
    let mut token = format!("{PREFIX}{id}_");
    let mut missing = SECRET_LENGTH;
    while missing > 0 {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 are skipped: with them, some characters would be more
        // likely than others.
        let characters = bytes.iter().filter(|byte| **byte < 248);
        for byte in characters.take(missing) {
            token.push(ALPHABET[usize::from(byte % 62)].into());
        }
        missing = SECRET_LENGTH - (token.len() - PREFIX.len() - id.len() - 1);
    }
    Ok(token)
}

/// Returns the SHA-256 of a token. A token has 256 random bits, so a slow hash
/// would only cost CPU (ADR 0030).
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Returns whether `text` has the form of a token.
#[must_use]
pub fn is_token(text: &str) -> bool {
    id_of(text).is_some()
}

/// Returns the id in a token, or `None` if `text` does not have the form of one.
pub(super) fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.rsplit_once('_')?;
    let is_secret =
        secret.len() == SECRET_LENGTH && secret.bytes().all(|c| c.is_ascii_alphanumeric());
    (is_secret && (1..=Key::MAX_ID).contains(&id.len())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_names_its_key_and_is_unique() {
        for id in ["web", "a_b-c.d", "_"] {
            let token = generate_token(id).unwrap();
            assert_eq!(id_of(&token), Some(id), "{token}");
            assert_ne!(token, generate_token(id).unwrap());
        }
    }

    #[test]
    fn every_character_of_the_alphabet_is_generated() {
        let secrets: String =
            (0..200).map(|_| generate_token("x").unwrap()[8..].to_owned()).collect();
        for character in ALPHABET {
            assert!(secrets.contains(char::from(*character)), "{}", char::from(*character));
        }
    }

    #[test]
    fn other_text_is_not_a_token() {
        let secret = "a".repeat(43);
        for text in [
            "",
            "eyego_",
            &secret,
            &format!("eyego_{secret}"),
            &format!("eyego__{secret}"),
            &format!("eyego_x_{secret}a"),
            &format!("eyego_{}_{secret}", "x".repeat(65)),
            &format!("eyego_x_{}-", &secret[1..]),
        ] {
            assert!(!is_token(text), "{text}");
        }
    }

    #[test]
    fn hash_is_sha_256() {
        let hex: String = hash_token("abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
