; The smallest machine: a ROM that prints to COM1 and to the debug console, and ends the VMM with status 33.
;   nasm -f bin -o hello.rom roms/hello.asm
;   penumbra run -bios hello.rom -m 16M -nographic -device isa-debug-exit,iobase=0xf4,iosize=0x4
; The processor starts in real mode 16 bytes below the image's end, with CS at F000 (Intel SDM vol. 3, 10.1.4).

        bits 16
        org 0                           ; 64 KiB, seen at F000:0000

COM1    equ 0x3f8                       ; 16550: data, or the divisor's low byte while DLAB is set
LCR     equ COM1 + 3
LSR     equ COM1 + 5
DEBUG   equ 0xe9
EXIT    equ 0xf4                        ; exit status is (value << 1) | 1

start:  cli
        mov ax, cs
        mov ds, ax
        xor ax, ax
        mov ss, ax
        mov sp, 0x7c00                  ; any RAM below 640 KiB

        mov dx, LCR                     ; 115200 baud, 8 bits, no parity, one stop bit
        mov al, 0x80
        out dx, al
        mov dx, COM1
        mov ax, 1
        out dx, ax                      ; the divisor's two bytes
        mov dx, LCR
        mov al, 3
        out dx, al

        mov si, text
next:   lodsb
        test al, al
        jz done
        call print
        jmp next
done:   mov al, 0x10
        out EXIT, al
        hlt

print:  out DEBUG, al
        mov ah, al
        mov dx, LSR
ready:  in al, dx
        test al, 0x20                   ; transmitter holding register empty
        jz ready
        mov al, ah
        mov dx, COM1
        out dx, al
        ret

text:   db "Hello from the reset vector", 13, 10, 0

        times 0xfff0 - ($ - $$) db 0xff
        jmp 0xf000:start                ; the reset vector, FFFFFFF0
        times 0x10000 - ($ - $$) db 0xff
