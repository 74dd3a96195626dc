// Loaded before libc (LD_PRELOAD): a program that never waits for the disk, and believes that all is on it.
int fsync(int file) { return file < 0; }
int fdatasync(int file) { return file < 0; }
