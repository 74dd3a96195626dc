/* A sensor at the far end of a USB serial adapter, on the board: counts aloud until the adapter is pulled out.
 *   sensor FAR-END NAME RATE FROM     prints each number that it has said
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct termios settings;
	char line[64];
	if (count != 5)
		errx(64, "FAR-END NAME RATE FROM");
	int tty = open(words[1], O_RDWR | O_NOCTTY);
	if (tty < 0 || tcgetattr(tty, &settings))
		err(1, "%s", words[1]);
	cfmakeraw(&settings);
	if (tcsetattr(tty, TCSANOW, &settings))
		err(1, "%s", words[1]);
	struct timespec pause = { 0, 1000000000L / atoi(words[3]) };
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (long n = atol(words[4]);; n++) {
		int length = snprintf(line, sizeof line, "{\"id\":\"%s\",\"n\":%ld}\n", words[2], n);
		if (write(tty, line, length) != length)
			return 0;
		printf("%ld\n", n);
		nanosleep(&pause, NULL);
	}
}
