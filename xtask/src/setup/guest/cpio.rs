//! Writes cpio archives of the "newc" kind, which Linux unpacks as its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Needs no cpio program and no right
//! to make device nodes, and gives the same bytes each time: no dates, no owner but root.

/// The file types of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A directory with its permission bits. It has to come before what is in it.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, DIRECTORY | permissions, (0, 0), &[]);
    }

    /// A file with its permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, REGULAR | permissions, (0, 0), contents);
    }

    /// A number for the names of one file: see [`Self::one_of`].
    pub fn inode(&mut self) -> u32 {
        self.entries = self.entries.wrapping_add(1);
        self.entries
    }

    /// One of the names of a file that has `links`. The last of them carries the contents, those before none.
    pub fn one_of(
        &mut self,
        path: &str,
        permissions: u32,
        inode: u32,
        links: u32,
        contents: &[u8],
    ) {
        self.numbered(path, REGULAR | permissions, (inode, links), (0, 0), contents);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// A character device with its major and minor number.
    pub fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, device, &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        // The number of the entry that ends an archive is 0 by custom, so that archives compare.
        self.numbered("TRAILER!!!", 0, (0, 1), (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let number = self.inode();
        self.numbered(path, mode, (number, links), device, contents);
    }

    /// Appends one entry: a header of 110 ASCII characters, the name, the contents, each padded to
    /// four bytes. All numbers are eight hexadecimal digits.
    fn numbered(
        &mut self,
        path: &str,
        mode: u32,
        (number, links): (u32, u32),
        device: (u32, u32),
        contents: &[u8],
    ) {
        let size = u32::try_from(contents.len()).expect("newc holds files below 4 GB");
        let name_size = u32::try_from(path.len() + 1).expect("names are short");
        let (owner, group, time, check) = (0, 0, 0, 0);
        let fields = [
            number, mode, owner, group, links, time, size, 0, 0, device.0, device.1, name_size,
            check,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One entry as read back: path, mode, device, contents.
    pub type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive by the format's description.
    pub fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap().to_owned();
            assert_eq!(bytes[110 + name_size - 1], 0);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), (110 + name_size).next_multiple_of(4));
                return entries;
            }
            let start = (110 + name_size).next_multiple_of(4);
            let device = (field(9), field(10));
            entries.push((name, mode, device, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut archive = Archive::default();
        archive.directory("dev", 0o755);
        archive.character_device("dev/console", 0o600, (5, 1));
        archive.file("init", 0o755, b"#!/bin/sh\n");
        archive.link("bin/sh", "busybox");
        let entries = read(&archive.finish());
        assert_eq!(
            entries,
            [
                ("dev".into(), 0o040_755, (0, 0), vec![]),
                ("dev/console".into(), 0o020_600, (5, 1), vec![]),
                ("init".into(), 0o100_755, (0, 0), b"#!/bin/sh\n".to_vec()),
                ("bin/sh".into(), 0o120_777, (0, 0), b"busybox".to_vec()),
            ]
        );
    }

    #[test]
    fn names_of_one_file_share_number_and_contents() {
        let mut archive = Archive::default();
        let inode = archive.inode();
        archive.one_of("a", 0o755, inode, 2, &[]);
        archive.file("b", 0o644, b"other");
        archive.one_of("c", 0o755, inode, 2, b"text");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let header = "0707010000000100 0081ed 0000000000000000 00000002".replace(' ', "");
        assert_eq!(text.matches(&header).count(), 2, "{text}");
        let contents: Vec<_> = read(&bytes).into_iter().map(|entry| entry.3).collect();
        assert_eq!(contents, [&b""[..], b"other", b"text"]);
    }

    #[test]
    fn the_bytes_are_the_formats() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"hello");
        let expected = "070701\
                        00000001000081a4000000000000000000000001000000000000000500000000\
                        0000000000000000000000000000000200000000a\0hello\0\0\0\
                        070701\
                        0000000000000000000000000000000000000001000000000000000000000000\
                        0000000000000000000000000000000b00000000TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8(archive.finish()).unwrap(), expected);
    }
}
