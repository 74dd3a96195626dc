// What a time service does to the kernel's clock once it has set it.
#include <sys/timex.h>

int main(void) {
    struct timex t = {.modes = ADJ_STATUS | ADJ_MAXERROR, .status = STA_PLL, .maxerror = 1000};
    return adjtimex(&t) < 0;
}
