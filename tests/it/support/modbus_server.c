/* A Modbus slave made of libmodbus alone: `modbus_server rtu PORT UNIT` or `modbus_server tcp PORT UNIT`. What it holds, it
 * holds by libmodbus' own encoders, so that the test of the gateway's has another's word. Holding and input registers:
 *
 *      0..9     1111 + 10 * unit, and the nine numbers behind it;  20..29: 2222 + 10 * unit, and so on
 *    100..259   each encoding in each order, 4 registers for each: see `fill`
 *    300, 301   are not there (exception 2);  320 fails (exception 4)
 *    400        takes what is written, but keeps 100 at most
 *    500..509   take what is written
 * Coils and discrete inputs: each third one is on. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <modbus.h>

enum { REGISTERS = 1000, BITS = 100, TYPES = 10 };

static float bits_of(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* 32 bits in each order, by libmodbus. Which of its functions makes which order differs from version to version
 * (github.com/stephane/libmodbus/issues/358, 665, 838), so each is asked first by bytes that tell themselves. */
static void put32(uint16_t *at, uint32_t bits) {
    void (*const functions[])(float, uint16_t *) = {modbus_set_float_abcd, modbus_set_float_cdab, modbus_set_float_badc,
                                                    modbus_set_float_dcba};
    const uint16_t orders[] = {0x0a0b, 0x0c0d, 0x0b0a, 0x0d0c}; /* the first register of ABCD, CDAB, BADC, DCBA */
    int found = 0;
    for (int f = 0; f < 4; f++) {
        uint16_t told[2];
        functions[f](bits_of(0x0a0b0c0d), told);
        for (int order = 0; order < 4; order++) {
            if (told[0] != orders[order]) continue;
            functions[f](bits_of(bits), at + 4 * order);
            found |= 1 << order;
        }
    }
    if (found != 15) {
        fprintf(stderr, "libmodbus " LIBMODBUS_VERSION_STRING " does not make all four orders\n");
        exit(70);
    }
}

/* 64 bits by libmodbus' macro; it knows the first order only, the others are those of 32 bits taken further. */
static void put64(uint16_t *at, int64_t bits) {
    MODBUS_SET_INT64_TO_INT16(at, 0, bits);
    for (int i = 0; i < 4; i++) {
        uint16_t word = at[i], swapped = (uint16_t)(word << 8 | word >> 8);
        at[4 + 3 - i] = word;
        at[8 + i] = swapped;
        at[12 + 3 - i] = swapped;
    }
}

static void put16(uint16_t *at, uint16_t word) {
    uint16_t swapped = (uint16_t)(word << 8 | word >> 8);
    at[0] = at[4] = word;
    at[8] = at[12] = swapped;
}

static void fill(modbus_mapping_t *map, int unit) {
    uint16_t *tab = map->tab_registers, *at = tab + 100;
    double pi = 3.141592653589793;
    int64_t pi_bits;
    float volts = 230.1f;
    uint32_t volts_bits;
    memcpy(&pi_bits, &pi, sizeof pi);
    memcpy(&volts_bits, &volts, sizeof volts);
    for (int i = 0; i < 10; i++) {
        tab[i] = (uint16_t)(1111 + 10 * unit + i);
        tab[20 + i] = (uint16_t)(2222 + 10 * unit + i);
    }
    put16(at, 0xbeef);
    put16(at + 16, (uint16_t)-12345);
    put32(at + 32, 0xdeadbeef);
    put32(at + 48, (uint32_t)-123456789);
    put64(at + 64, 0x0123456789abcdef);
    put64(at + 80, -1234567890123456789);
    put32(at + 96, volts_bits);
    put64(at + 112, pi_bits);
    put16(at + 128, 0x1234);
    put32(at + 144, 0x12345678);
    memcpy(map->tab_input_registers, tab, REGISTERS * sizeof *tab);
    for (int i = 0; i < BITS; i++) map->tab_bits[i] = map->tab_input_bits[i] = i % 3 == 0;
}

/* The exception for what is asked; 0: none. */
static int refusal(const uint8_t *pdu) {
    unsigned first = pdu[1] << 8 | pdu[2], count = pdu[0] == 5 || pdu[0] == 6 ? 1 : pdu[3] << 8 | pdu[4];
    int registers = pdu[0] == 3 || pdu[0] == 4 || pdu[0] == 6 || pdu[0] == 16;
    if (registers && first <= 301 && first + count > 300) return MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;
    if (registers && first <= 320 && first + count > 320) return MODBUS_EXCEPTION_SLAVE_OR_SERVER_FAILURE;
    return 0;
}

static void serve(modbus_t *ctx, modbus_mapping_t *map) {
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(ctx, query);
        if (length == 0) continue; /* for another unit */
        if (length < 0) {
            if (errno == ECONNRESET || errno == EBADF || errno == EIO) return;
            continue;
        }
        int exception = refusal(query + modbus_get_header_length(ctx));
        if (exception)
            modbus_reply_exception(ctx, query, exception);
        else
            modbus_reply(ctx, query, length, map);
        if (map->tab_registers[400] > 100) map->tab_registers[400] = 100;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 64;
    int unit = atoi(argv[3]), is_tcp = strcmp(argv[1], "tcp") == 0;
    modbus_t *ctx = is_tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2])) : modbus_new_rtu(argv[2], 19200, 'N', 8, 1);
    modbus_mapping_t *map = modbus_mapping_new(BITS, BITS, REGISTERS, REGISTERS);
    if (!ctx || !map) return 70;
    fill(map, unit);
    modbus_set_slave(ctx, unit);
    if (!is_tcp) {
        if (modbus_connect(ctx) < 0) {
            fprintf(stderr, "%s: %s\n", argv[2], modbus_strerror(errno));
            return 71;
        }
        /* What was said before is lost. */
        if (write(modbus_get_socket(ctx), "!", 1) != 1) return 71;
        serve(ctx, map);
        return 0;
    }
    int listener = modbus_tcp_listen(ctx, 8);
    if (listener < 0) return 71;
    while (modbus_tcp_accept(ctx, &listener) >= 0) {
        serve(ctx, map);
        modbus_close(ctx);
    }
    return 0;
}
