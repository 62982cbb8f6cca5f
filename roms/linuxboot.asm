; An option ROM that starts a Linux kernel which the VMM hands over through fw_cfg, for BIOSes: what QEMU's linuxboot.bin is.
;
; PCI Firmware Specification 3.1, 5.2 (option ROMs); BIOS Boot Specification 1.01, 3.3 (bootstrap entry vector);
; QEMU, docs/specs/fw_cfg (DMA); Linux, Documentation/x86/boot.rst (entry of the real-mode code).
bits 16
cpu 486
org 0

; Where the real-mode code and the command line go is the VMM's choice, too (frontend/linux_boot.cpp).
SETUP_SEGMENT equ 0x1000
SETUP_STACK equ 0xfff0                  ; below the command line at 20000h
OWN_STACK_SEGMENT equ 0x8000

SELECTOR equ 0x510
DATA equ 0x511
DMA_LOW equ 0x518

; The VMM makes the sum of all bytes 0.
        dw      0xaa55
        db      (end - $$) / 512
        jmp     short initialize
        times   0x1a - ($ - $$) db 0
        dw      pnp

        align   16, db 0
pnp:    db      "$PnP", 1
        db      (pnp_end - pnp) / 16
        dw      0
        db      0, 0
        dd      0                       ; device
        dw      maker, product
        db      0, 0, 0                 ; device type
        db      0x64                    ; indicators: shadowable, boots itself
        dw      0, 0                    ; no boot connection nor disconnection
        dw      start                   ; bootstrap entry vector
        dw      0, 0
pnp_end:

maker:  db      "Penumbra", 0
product: db     "Linux kernel", 0

initialize:
        mov     ax, 0x20                ; something to boot from is there
        retf

start:
        cli
        cld
        mov     ax, OWN_STACK_SEGMENT
        mov     ss, ax
        mov     sp, 0xfffe
        ; address, size and data keys of: real-mode code, command line, kernel, initrd
        mov     eax, 0x16_17_18
        call    fetch
        mov     eax, 0x13_14_15
        call    fetch
        mov     eax, 0x07_08_11
        call    fetch
        mov     eax, 0x0a_0b_12
        call    fetch

        mov     ax, SETUP_SEGMENT
        mov     ds, ax
        mov     es, ax
        mov     fs, ax
        mov     gs, ax
        mov     ss, ax
        mov     sp, SETUP_STACK
        jmp     SETUP_SEGMENT + 0x20:0

; EAX: the keys of an address, of a size, and of the data, which is read to there.
fetch:  mov     ebp, eax
        shr     eax, 16
        call    number
        mov     edi, ebx
        mov     ax, bp
        shr     ax, 8
        call    number
        mov     eax, ebp
        and     eax, 0xff
        shl     eax, 16
        or      al, 0x0a                ; select, read
        bswap   eax
        bswap   ebx
        bswap   edi
        ; the descriptor, big-endian, from its end
        push    edi
        push    dword 0
        push    ebx
        push    eax
        xor     eax, eax
        mov     ax, ss
        shl     eax, 4
        xor     ebx, ebx
        mov     bx, sp
        add     eax, ebx
        bswap   eax
        mov     dx, DMA_LOW
        out     dx, eax
.wait:  mov     bx, sp
        mov     eax, [ss:bx]
        test    eax, eax
        jnz     .wait
        add     sp, 16
        ret

; EBX: the 32-bit number under the key AX.
number: mov     dx, SELECTOR
        out     dx, ax
        mov     dx, DATA
        mov     cx, 4
.next:  in      al, dx
        shrd    ebx, eax, 8
        loop    .next
        ret

        align   512, db 0
end:
